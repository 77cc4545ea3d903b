/*
 * The connections whose requests are answered in C, and the bytes that each has left over. Knows nothing of Python.
 *
 * A descriptor has a lane from `plain_lane` to `drop_lane`; without one its connection is slow. Only the caller changes
 * that.
 */
#ifndef METAMORPHOSIS_LANES_H
#define METAMORPHOSIS_LANES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lane {
    uint8_t *left; /* bytes that were received and not taken: the beginning of an ordinary request */
    size_t length;
    size_t taken; /* bytes of requests since it became plain */
    bool plain;
    bool syncs;  /* it is that of a pair's master: its `sync` requests are ordinary, and nothing else is */
    bool active; /* bytes came since `take_active` looked last */
};

/* By descriptor. */
struct lanes {
    struct lane *all;
    size_t room;
};

/* The lane of a descriptor; NULL: it is slow. */
struct lane *find_lane(const struct lanes *lanes, int descriptor);

/* Answer its requests from now on, with `syncs` those of a pair's master; false: there is no memory. */
bool plain_lane(struct lanes *lanes, int descriptor, const uint8_t *left, size_t length, bool syncs);

/* Keep these bytes, in place of those that were left; false: there is no memory, and nothing has changed. */
bool keep_left(struct lane *lane, const uint8_t *left, size_t length);

/* Make it slow. The caller has taken what is left. */
void drop_lane(struct lanes *lanes, int descriptor);

/* Drop all, and the table. */
void free_lanes(struct lanes *lanes);

#endif
