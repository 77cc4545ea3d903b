/*
 * The end of the waits of a set of sockets: one timer for all waits before the set returns to the reactor. A wait with
 * a time of its own sets a timer of the processor, and takes it back when something comes; in a virtual machine both go
 * through the hypervisor. At a pair, whose puts take three waits, that was a fifth of the time of a put. Does not use
 * Python.
 */
#ifndef METAMORPHOSIS_ALARM_H
#define METAMORPHOSIS_ALARM_H

#include <stdbool.h>
#include <stdint.h>

struct alarm {
    int descriptor; /* in the set; -1: there is none */
    bool is_set;
};

/* Without a descriptor for it there is no alarm. */
void make_alarm(struct alarm *alarm, int set);

/* Let it be ready at this time, unless it is set already; false: there is no alarm. */
bool set_alarm(struct alarm *alarm, int64_t nanoseconds);

/* Let it not be ready any more. */
void stop_alarm(struct alarm *alarm);

void free_alarm(struct alarm *alarm);

#endif
