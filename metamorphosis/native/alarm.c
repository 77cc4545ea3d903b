#ifdef __linux__

#define _GNU_SOURCE 1

#include "alarm.h"

#include <stddef.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define SECOND 1000000000

void make_alarm(struct alarm *alarm, int set) {
    *alarm = (struct alarm){timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), false};
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data = {.fd = alarm->descriptor}};
    if (alarm->descriptor >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, alarm->descriptor, &event) != 0)
        free_alarm(alarm);
}

bool set_alarm(struct alarm *alarm, int64_t nanoseconds) {
    if (alarm->descriptor < 0)
        return false;
    struct itimerspec at = {.it_value = {nanoseconds / SECOND, nanoseconds % SECOND}};
    alarm->is_set = alarm->is_set || timerfd_settime(alarm->descriptor, TFD_TIMER_ABSTIME, &at, NULL) == 0;
    return alarm->is_set;
}

void stop_alarm(struct alarm *alarm) {
    struct itimerspec never = {0};
    if (alarm->is_set)
        timerfd_settime(alarm->descriptor, 0, &never, NULL);
    alarm->is_set = false;
}

void free_alarm(struct alarm *alarm) {
    if (alarm->descriptor >= 0)
        close(alarm->descriptor);
    alarm->descriptor = -1;
}

#endif
