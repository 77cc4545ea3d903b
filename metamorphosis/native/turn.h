/*
 * A turn of the broker: what the ready sockets have sent is taken, written and answered. Knows nothing of Python; see
 * broker/hotpath/turn.py for what has to hold.
 *
 * A turn goes in rounds, each of which ends with nothing left to do: `receive_round` receives and reads requests,
 * `fill_records` makes what a store gets, `leave_round` writes to the files and then sends the replies. What the spans
 * of a round refer to is valid until the next `receive_round`.
 */
#ifndef METAMORPHOSIS_TURN_H
#define METAMORPHOSIS_TURN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>

#include "codec.h"
#include "lanes.h"

#define MAX_EVENTS 1024
#define AREA_BYTES (512 << 10)     /* received in a round, of all connections */
#define LANE_BYTES (256 << 10)     /* of one */
#define ROOM_BYTES (64 << 10)      /* a connection is served when there is so much room */
#define LEFT_BYTES (64 << 10)      /* a longer request is not ordinary before it has come as a whole */
#define LANE_FILE_BYTES (1 << 20)  /* gets of one connection in a round; one more goes the long way */
#define TURN_NANOSECONDS 1000000   /* no further round begins later than that */
#define NONE UINT32_MAX

/* A store that puts of this round go to, or records of a pair's master. */
struct appender {
    struct span topic, partition;
    bool syncs;        /* records of a pair's master */
    uint32_t next;     /* of the same hash */
    void *store;       /* the caller's; NULL: its puts are not ordinary now */
    int descriptor;
    int64_t position, next_offset;
    size_t bytes, count;
    uint32_t first, last; /* of its records, in `taken` */
    const uint8_t *data;  /* what is written, `bytes` long; lies in `memory` */
    void *memory, *outcome; /* the caller's */
    size_t written;
    int error; /* errno of the write that has failed, 0 */
};

/* A part of a log that gets of this round read. */
struct reader {
    struct span topic, partition;
    void *segment; /* the caller's; NULL: its gets are not ordinary now */
    void *store;   /* likewise */
    int descriptor;
    int64_t start; /* offset of the first byte of the file */
    int64_t limit; /* a get must begin below it */
    int64_t end;   /* and may read up to it */
    int64_t most;  /* bytes that a get returns */
    uint32_t next;
    size_t count; /* gets that were answered */
};

/* A request that was taken, and its reply: a text, and of a get a range of a file after it. */
struct taken {
    size_t reply_end; /* of the text, in `replies` */
    uint32_t appender, reader; /* one of them is NONE */
    struct span body;
    int64_t id;
    uint32_t checksum;
    int32_t flag;
    uint32_t next;   /* record of the same store */
    uint32_t number; /* of the record in what its store gets in this round */
    int64_t position, length; /* of a get: in the file */
};

/* A connection that was served in this round. */
struct answered {
    int descriptor;
    bool syncs;                  /* of a pair's master */
    uint32_t first, end;         /* its requests in `taken` */
    size_t request_bytes;        /* of them */
    size_t reply_start, reply_end;
    struct span rest; /* what was received and is not ordinary */
    bool has_gets;
    bool refused; /* a record of its puts is not in the file: nothing was sent */
    size_t sent;             /* of the texts: a position in `replies` */
    uint32_t reached;        /* the first request whose reply has not left */
    int64_t sent_file;       /* of its range */
    bool unsent;             /* the socket did not take everything */
};

/* A socket that the caller serves. */
struct ready {
    int descriptor;
    uint32_t events;
};

/* What the caller knows. Each is called at most once a round for one store, but `carry`. */
struct calls {
    void *context;
    /* Fill in an appender whose names and `syncs` are set; leave `store` NULL if its puts are not ordinary. */
    void (*begin)(void *context, struct appender *appender);
    /* Fill in a reader whose names are set for a get at `offset`; leave `segment` NULL likewise. */
    void (*find)(void *context, struct reader *reader, int64_t offset);
    /* The id of the first record of this round; false: there is none. */
    bool (*first_id)(void *context, int64_t *id);
    /* What follows the last id of a millisecond; `overflowed` is that plus one. */
    int64_t (*carry)(void *context, int64_t overflowed);
};

#define BUCKETS 256

/* The memory of one set of sockets, and the round that goes on. */
struct turn {
    struct lanes lanes;
    struct calls calls;
    uint32_t (*crc32)(const uint8_t *data, size_t length);
    size_t max_body;
    int set; /* the epoll set */
    struct epoll_event events[MAX_EVENTS];
    int ready_count, ready_at; /* of `events` */
    uint8_t *area;
    size_t area_used;
    struct appender *appenders;
    size_t appender_count, appender_room;
    uint32_t appender_buckets[BUCKETS];
    struct reader *readers;
    size_t reader_count, reader_room;
    uint32_t reader_buckets[BUCKETS];
    struct taken *taken;
    size_t taken_count, taken_room;
    uint8_t *replies;
    size_t reply_bytes, reply_room;
    struct answered *answered;
    size_t answered_count, answered_room;
    struct ready slow[MAX_EVENTS];
    size_t slow_count;
    bool has_id; /* `next_id` was asked for */
    int64_t next_id;
};

/* False: there is no memory. */
bool make_turn(struct turn *turn, int set, size_t max_body, struct calls calls);

void free_turn(struct turn *turn);

/* Whether sockets that were ready have not been served yet. */
bool has_ready(const struct turn *turn);

/* Do not serve it before it is seen to be ready again: what it stands for has changed. */
void forget_ready(struct turn *turn, int descriptor);

/* Forget the last round, and take what the sockets that are ready have sent. False: none was ready. */
bool receive_round(struct turn *turn);

/* Write the records of a store of this round to `data`, which has `bytes` of room. */
void fill_records(struct turn *turn, const struct appender *appender, uint8_t *data);

/* Write every store whose `data` is set, then send what may be sent. Calls nothing of the caller. */
void leave_round(struct turn *turn);

/* Room for one more of an array; false: there is no memory. */
bool make_room_for(void **array, size_t *room, size_t wanted, size_t each);

#endif
