/*
 * The connection of a pair's master to its slave: the frames that leave with the turn, and the runs whose answers are
 * expected. Does not use Python.
 *
 * A flight is one run. Its answers are taken here only when all of them have come and each is the expected one.
 * Everything else is left to the caller, who has a record of each flight, too; the line is *paused* then until the
 * caller has taken whole answers.
 */
#ifndef METAMORPHOSIS_LINE_H
#define METAMORPHOSIS_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frames.h"

/* A run that was sent. */
struct flight {
    void *flight, *appender, *memory; /* of the caller; `run` is inside `memory` */
    struct span run;
    size_t count;    /* of its records */
    int64_t number;  /* of its first frame, which has it as its opaque, modulo `opaques` */
    int64_t opaques; /* they begin again with 0 */
    int64_t offset;  /* of its first record, on both brokers */
};

struct line {
    int descriptor; /* of the lane; NO_LINE: there is none */
    int out_to;     /* the descriptor to which `out` belongs */
    uint8_t *out;   /* frames of this turn */
    size_t out_bytes, out_room, out_records;
    size_t wanted;          /* records that are expected soon: producers have the replies to so many */
    struct flight *flights; /* those from `first` on are expected */
    size_t first, count, room;
    bool paused;
};

#define NO_LINE (-1)

void make_line(struct line *line);

void free_line(struct line *line);

/* Whether frames may be sent here. */
bool is_open(const struct line *line);

/* The number of expected flights. */
size_t flight_count(const struct line *line);

/* The flight whose answers are expected next; NULL: there is none. */
struct flight *first_flight(struct line *line);

/* Drop it. The caller has released its objects. */
void drop_flight(struct line *line);

/* Make room for another flight, and for the frames of its run, which has `count` records; false: there is no memory. */
bool make_flight_room(struct line *line, struct span head, const struct flight *flight);

/* Expect the answers to a flight, and let its frames leave with the turn. There is room for it. */
void add_flight(struct line *line, struct span head, const struct flight *flight);

/* Step over all answers to a flight; otherwise `past` stays, see `enum reading`. */
enum reading take_answers(const struct flight *flight, const uint8_t **past, const uint8_t *end);

/* Send the frames of this turn; returns the number of sent bytes. */
size_t send_frames(const struct line *line);

/* Drop so many bytes at the front of these frames. */
void drop_frames(struct line *line, size_t bytes);

#endif
