/*
 * The frames of a pair's master, and the answers of its slave. Does not use Python.
 *
 * A run is whole records that follow each other in one piece of memory, as in the log.
 */
#ifndef METAMORPHOSIS_FRAMES_H
#define METAMORPHOSIS_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec.h"

/* How much of an answer the bytes have; OTHER: they begin with something else. */
enum reading { WHOLE, PARTIAL, OTHER };

/* The records of a run whose answers are expected next. */
struct expected {
    struct span run;
    size_t at;              /* of the first of them, in the run */
    int64_t opaque, offset; /* in its answer */
};

static inline uint32_t big_endian(const uint8_t *from) {
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

/* The opaque of the next frame; they begin again with 0. */
int64_t next_opaque(int64_t opaque, int64_t opaques);

/* The bytes of a frame; `head` is the length of the beginning of its line. */
size_t frame_length(size_t head, struct span header, struct span body, int64_t opaque);

/* Write a frame; returns its end. */
uint8_t *write_frame(uint8_t *to, struct span head, struct span header, struct span body, int64_t opaque);

/* The record that begins at `at` of a run; false: the run does not have it whole. */
bool record_in(struct span run, size_t at, struct span *header, struct span *body);

/* The bytes of all frames of a run; 0: it does not consist of `count` records. */
size_t measure_run(struct span run, size_t count, size_t head, int64_t opaque, int64_t opaques);

/* At most as many bytes, for a run that consists of `count` records. */
size_t most_bytes(struct span run, size_t count, size_t head);

/* Write the frames of a run; returns their end. */
uint8_t *write_run(uint8_t *to, struct span head, struct span run, int64_t opaque, int64_t opaques);

/* Read one answer that accepts a record, and step over it. */
enum reading answer_at(const uint8_t **at, const uint8_t *end, int64_t *opaque, int64_t *offset);

/*
 * Step over the answers that accept the next records of a run, each at its offset; returns their number. `last`: how
 * the bytes after them begin; WHOLE: there are none, or no more records.
 */
size_t step_over(struct expected *next, int64_t opaques, const uint8_t **past, const uint8_t *end, enum reading *last);

#endif
