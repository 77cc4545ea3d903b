/* The monotonic clock. */
#ifndef METAMORPHOSIS_NANOSECONDS_H
#define METAMORPHOSIS_NANOSECONDS_H

#include <stdint.h>
#include <time.h>

static inline int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

#endif
