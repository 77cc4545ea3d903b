/*
 * The replies of plain connections that wait, because the batch with their records is not decided yet. Does not use
 * Python.
 *
 * A batch is known here from `add_batch` to `remove_batch`. A connection has a queue from its first reply that waits
 * until all have left; later replies stand behind them, in request order.
 */
#ifndef METAMORPHOSIS_HELD_H
#define METAMORPHOSIS_HELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BATCH_BUCKETS 256
#define MAX_SPARE 256    /* empty queues that are kept for the next round */
#define SPARE_BYTES 8192 /* a queue with more room is freed instead */
#define NO_BATCH UINT32_MAX

/* Records that are stored, or refused, together. */
struct batch {
    void *outcome; /* of the caller; NULL: this place is free */
    int *lanes;    /* descriptors of connections with replies that wait for it; some may be gone */
    size_t lane_count, lane_room;
    uint32_t next; /* the next with the same hash, or the next free place */
};

/* All batches that replies wait for. */
struct batches {
    struct batch *all;
    size_t count, room;
    size_t used; /* of `count` places */
    uint32_t buckets[BATCH_BUCKETS];
    uint32_t free;
};

/* A reply that waits. */
struct held_reply {
    void *outcome;    /* the batch; NULL: it only stands behind others */
    uint32_t end;     /* of its text in `texts` */
    uint32_t number;  /* of its record in the batch */
    uint32_t request; /* bytes of its request */
};

/* The queue of a connection. */
struct held {
    struct held *next; /* in `spare` */
    uint8_t *texts;
    size_t bytes, text_room, sent;
    struct held_reply *replies;
    size_t first, count, reply_room; /* those before `first` have left */
    size_t request_bytes;
    bool is_full; /* the socket did not take everything */
};

/* Queues for later use. */
struct spare {
    struct held *first;
    size_t count;
};

struct answered;
struct lane;
struct turn;

void make_batches(struct batches *batches);

void free_batches(struct batches *batches);

void free_spare(struct spare *spare);

/* The batch with this outcome; NULL: no reply waits for it. */
struct batch *find_batch(const struct batches *batches, const void *outcome);

/* The same; `is_new` where it was not known. NULL: there is no memory. */
struct batch *add_batch(struct batches *batches, void *outcome, bool *is_new);

void remove_batch(struct batches *batches, struct batch *batch);

/*
 * Put the replies of this round to a connection behind those that wait; there is no get among them. False: there is no
 * memory, or a batch is decided already; then nothing has changed.
 */
bool hold_replies(struct turn *turn, struct lane *lane, const struct answered *answered);

/* The replies that wait for this batch wait for nothing now; false: there is none. */
bool let_leave(struct held *held, const void *outcome);

/* Send the replies before the first that waits; sets `is_full` where the socket did not take all of them. */
void send_held(struct turn *turn, int descriptor, struct lane *lane);

/* Drop the replies of a connection that have not left. */
void drop_held(struct turn *turn, struct lane *lane);

/* Free a queue; it may be NULL. */
void free_held(struct held *held);

#endif
