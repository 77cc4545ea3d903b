/*
 * When the set of sockets waits for the next requests itself, before it returns to the reactor; for turnmodule.c.
 *
 * Each return through the reactor costs a third of the CPU time of a turn with one request. So the set lingers after a
 * turn with nothing but ordinary requests: it waits for the next ones, until the next delayed call of the reactor is
 * due, for up to four milliseconds. The reactor's other sockets wait meanwhile. In a virtual machine the return costs
 * more than its CPU time: the processor falls asleep there, and the other member of a pair, on the same processor, is
 * disturbed.
 *
 * It lingers where the next request comes soon: at the two members of a pair, since a put to a pair takes three turns;
 * and for a lone client, when two turns have served one socket, the same, and the second has begun within 500 us of the
 * end of the first. Turns of one socket each are common with several busy clients, too: there larger turns save more.
 * It does not linger while a reply waits for a flush, whose end the reactor must see, nor with much under way: then
 * larger turns save more.
 *
 * The wait begins with a busy poll. In a virtual machine a processor that sleeps is woken by a signal through the
 * hypervisor: that, and the return from sleep, took 53 % of the broker's CPU time for the puts of a lone client. A busy
 * poll that finds nothing in its time was in vain: then the next wait has none, after the second in a row the next
 * three, up to 255. So it ends by itself where the client is slower, or shares the processor with the broker. The
 * master of a pair counts the polls for answers of its slave apart: where both have one processor these are in vain,
 * and those for the client's next put are not.
 */
#ifndef METAMORPHOSIS_LINGERING_H
#define METAMORPHOSIS_LINGERING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "turn.h"

/* With more bytes of requests in a turn, or waiting, the set does not linger: what comes while the reactor is away
 * makes the next turn larger, and each request cheaper. */
#define LINGER_BYTES (32 << 10)

/* The outcomes of busy polls for the same thing. */
struct polls {
    int in_vain; /* the waits to skip after the last one: 0, 1, 3, 7, ... */
    int skips;   /* those of them that are left */
};

/* The Python type `Lingering`. */
typedef struct {
    PyObject_HEAD
    PyObject *timeout;      /* returns the seconds until the reactor's next delayed call, or None */
    PyObject *wait, *clock; /* of a test; NULL: those of the system */
    int busy_poll;          /* microseconds; 0: never */
    int64_t ended, began;   /* nanoseconds; of the turn before, and of this one */
    int64_t until;          /* nanoseconds; after which no further wait begins; 0: not known yet */
    bool is_begun;          /* `ended` is known */
    bool soon;              /* the present turn began soon after the one before */
    bool is_over;           /* the last wait was in vain, or there was no time for it */
    struct polls polls[2];  /* for requests, and for answers of the slave */
} Lingering;

/* See `turn` of the module: what is waited for. */
struct expectation {
    bool of_pair; /* this is a member of a pair: the wait is asleep after its busy poll */
    bool answers; /* of its slave */
};

/* Whether the present turn may be followed by a wait. */
bool may_linger(const Lingering *lingering, const struct turn *turn, bool of_pair);

/* Wait for the next request, unless it is time to return; whether it has come. */
bool linger(Lingering *lingering, struct turn *turn, struct expectation expected);

/* Add the type to the module; -1 with an error set. */
int lingering_add(PyObject *module);

#endif
