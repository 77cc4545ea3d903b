/*
 * A turn of the broker: it receives the requests of the ready sockets, writes their records and sends the replies. It
 * does not use Python; broker/hotpath/turn.py has its rules.
 *
 * A turn consists of rounds, each complete in itself: `receive_round` receives and reads requests, `fill_records` makes
 * the data of a store, `leave_round` writes to the files and then sends the replies. The spans of a round are valid
 * until the next `receive_round`.
 */
#ifndef METAMORPHOSIS_TURN_H
#define METAMORPHOSIS_TURN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>

#include "alarm.h"
#include "codec.h"
#include "held.h"
#include "lanes.h"
#include "line.h"

#define MAX_EVENTS 1024
#define AREA_BYTES (512 << 10)    /* received in a round, from all connections */
#define LANE_BYTES (256 << 10)    /* from one connection */
#define ROOM_BYTES (64 << 10)     /* the least free room to serve a connection */
#define LEFT_BYTES (64 << 10)     /* a longer request is ordinary only when it is complete */
#define LANE_FILE_BYTES (1 << 20) /* gets of one connection in a round; the rest is left to Python */
#define TURN_NANOSECONDS 1000000  /* no further round begins after this time */
#define NONE UINT32_MAX

/* A store that puts of this round go to, or records of a pair's master. */
struct appender {
    struct span topic, partition;
    bool syncs;        /* records of a pair's master */
    uint32_t next;     /* the next with the same hash */
    void *store;       /* owned by the caller; NULL: its puts are not ordinary now */
    bool collects;     /* its records go to the caller, who writes them later */
    bool sends;        /* they collect, and leave with the frames of this turn if the line is open */
    bool checked_only; /* puts without a checksum are not ordinary */
    int descriptor;
    int64_t position, next_offset;
    size_t bytes, count;
    uint32_t first, last;   /* of its records, in `taken` */
    const uint8_t *data;    /* the data to write, `bytes` long, inside `memory` */
    void *memory, *outcome; /* owned by the caller */
    uint32_t before;        /* records that `outcome` has before those of this round */
    size_t written;
    int error; /* errno of a failed write, or 0 */
};

/* A part of a log that gets of this round read. */
struct reader {
    struct span topic, partition;
    void *segment; /* owned by the caller; NULL: its gets are not ordinary now */
    void *store;   /* likewise */
    int descriptor;
    int64_t start; /* offset of the first byte of the file */
    int64_t limit; /* a get must begin below it */
    int64_t end;   /* and may read up to it */
    int64_t most;  /* the most bytes that a get returns */
    uint32_t next;
    size_t count; /* answered gets */
};

/* A request that was taken, and its reply: a text, and for a get a range of a file after it. */
struct taken {
    size_t reply_end;          /* end of the text in `replies` */
    uint32_t appender, reader; /* one of them is NONE */
    struct span body;
    int64_t id;
    uint32_t checksum;
    int32_t flag;
    uint32_t next;            /* the next record of the same store */
    uint32_t number;          /* of the record among those of its store in this round */
    uint32_t request;         /* bytes of the request */
    int64_t position, length; /* the range of a get in the file */
};

/* A connection that was served in this round. */
struct answered {
    int descriptor;
    bool syncs;           /* of a pair's master */
    bool answers;         /* of a pair's slave */
    uint32_t first, end;  /* its requests in `taken` */
    size_t request_bytes; /* their bytes */
    size_t reply_start, reply_end;
    struct span rest; /* received bytes that are not ordinary */
    bool has_gets;
    bool waits;        /* a reply waits for a batch of the caller, or stands behind such a reply: nothing was sent */
    bool refused;      /* a record of its puts is not in the file: nothing was sent */
    size_t sent;       /* end of the sent texts in `replies` */
    uint32_t reached;  /* the first request whose reply has not left */
    int64_t sent_file; /* sent bytes of its range */
    bool unsent;       /* the socket did not take everything */
};

/* A socket that is left to the caller. */
struct ready {
    int descriptor;
    uint32_t events;
};

/* Functions of the caller. All but `carry` are called at most once a round for each store. */
struct calls {
    void *context;
    /* Fill in an appender whose names and `syncs` are set; leave `store` NULL if its puts are not ordinary. */
    void (*begin)(void *context, struct appender *appender);
    /* Fill in a reader whose names are set for a get at `offset`; leave `segment` NULL likewise. */
    void (*find)(void *context, struct reader *reader, int64_t offset);
    /* The id of the first record of this round; false: there is none. */
    bool (*first_id)(void *context, int64_t *id);
    /* The id after the last id of a millisecond; `overflowed` is that last id plus one. */
    int64_t (*carry)(void *context, int64_t overflowed);
};

#define BUCKETS 256

/* The memory of one set of sockets, and the present round. */
struct turn {
    struct lanes lanes;
    struct line line;
    struct batches batches;
    struct spare spare;
    struct calls calls;
    uint32_t (*crc32)(const uint8_t *data, size_t length);
    size_t max_body;
    size_t max_held; /* bytes of requests of one connection whose replies wait; then it is left to the caller */
    int set;         /* the epoll set */
    struct alarm alarm;
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
    size_t held_bytes; /* of requests whose replies wait, of all connections */
    struct ready slow[MAX_EVENTS];
    size_t slow_count;
    size_t request_bytes; /* of the requests taken since the caller has set it to 0 */
    size_t served;        /* sockets, likewise */
    int last;             /* the socket that was served last */
    int lone;             /* the only socket of the turn before that served any; -1: it served several */
    bool has_id;          /* `next_id` is valid */
    int64_t next_id;
};

/* False: there is no memory. */
bool make_turn(struct turn *turn, int set, size_t max_body, size_t max_held, struct calls calls);

void free_turn(struct turn *turn);

/* Whether ready sockets have not been served yet. */
bool has_ready(const struct turn *turn);

/*
 * Look for ready sockets, unless some of the last search are left; wait so long for the first, with -1 until the alarm,
 * which must be set.
 */
bool look(struct turn *turn, int milliseconds);

/* Drop pending events of a descriptor, which may now belong to another socket; whether there were some. */
bool forget_ready(struct turn *turn, int descriptor);

/* Forget the last round, and take the requests of the ready sockets. False: none was ready. */
bool receive_round(struct turn *turn);

/* Write the records of a store of this round to `data`, which has `bytes` of room. */
void fill_records(struct turn *turn, const struct appender *appender, uint8_t *data);

/*
 * Write the data of every store whose `data` is set, unless it collects; then send the replies that wait for nothing.
 * Does not call the caller's functions.
 */
void leave_round(struct turn *turn);

/* Make room for `wanted` elements of an array; false: there is no memory. */
bool make_room_for(void **array, size_t *room, size_t wanted, size_t each);

#endif
