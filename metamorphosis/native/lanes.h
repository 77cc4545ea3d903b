/*
 * The connections whose requests are answered in C, and the bytes that each has left over. Does not use Python.
 *
 * A descriptor has a lane from `plain_lane` to `drop_lane`; without a lane its connection is slow. Only the caller
 * makes and drops lanes.
 */
#ifndef METAMORPHOSIS_LANES_H
#define METAMORPHOSIS_LANES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct held;

/* 32 bytes: a broker may have many idle connections. */
struct lane {
    struct held *held; /* replies that wait, see held.h; NULL: there are none */
    uint8_t *left;     /* received bytes that were not taken: the beginning of an ordinary request */
    size_t taken;      /* bytes of requests since it became plain */
    uint32_t length;   /* of `left` */
    bool plain;
    bool syncs;   /* the lane of a pair's master: only its `sync` requests are ordinary */
    bool answers; /* the lane of a pair's slave: it sends answers, see line.h */
    bool active;  /* bytes came since Python read this flag last */
};

/* All lanes, by descriptor. */
struct lanes {
    struct lane *all;
    size_t room;
};

/* The lane of a descriptor; NULL: its connection is slow. */
struct lane *find_lane(const struct lanes *lanes, int descriptor);

/* Answer its requests from now on, with `syncs` those of a pair's master; false: there is no memory. */
bool plain_lane(struct lanes *lanes, int descriptor, const uint8_t *left, size_t length, bool syncs);

/* Keep these bytes instead of those that were left; false: there is no memory, and nothing has changed. */
bool keep_left(struct lane *lane, const uint8_t *left, size_t length);

/* Make the connection slow. The caller has taken the left-over bytes and dropped its replies. */
void drop_lane(struct lanes *lanes, int descriptor);

/* Drop all lanes, and the table. */
void free_lanes(struct lanes *lanes);

#endif
