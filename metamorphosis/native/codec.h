/*
 * The ordinary requests of the wire, and stored records: bytes in, spans and numbers out. Does not
 * use Python.
 *
 * broker/hotpath/contract.py defines which requests are ordinary, message.py the format of a
 * record. Every pointer is compared with the end of the bytes before a read, and only the result is
 * written.
 */
#ifndef METAMORPHOSIS_CODEC_H
#define METAMORPHOSIS_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Header of a stored record: length, checksum, id, flag; all big-endian. */
#define RECORD_HEADER_BYTES 20

#define MAX_INT64_CHARACTERS 20 /* of a decimal number, with its sign */

#define CHECKSUM_MASK 0x7fffffffu /* of a CRC-32: a checksum is never negative as an int32 */
#define SEQUENCE_MASK 0xfff       /* of an id: after the last one of a millisecond, ids carry */

/* The longest reply to a put: "result 200 ", 2 digits, an opaque, CRLF, an id, a partition, an offset. */
#define PUT_REPLY_BYTES 96

/* A longer line of a get or of a transaction is not ordinary; as in hotpath/contract.py. */
#define ORDINARY_LINE 1024

struct span {
    const uint8_t *start;
    size_t length;
};

static inline bool same_bytes(struct span one, struct span other) {
    return one.length == other.length && memcmp(one.start, other.start, one.length) == 0;
}

/* An ordinary put, or a record that a master syncs, with its whole body. */
struct put {
    struct span topic;
    struct span partition; /* as it is spelled */
    struct span route;     /* topic and partition with the blank between them */
    struct span opaque;    /* as it is spelled, which is canonical */
    struct span body;
    const uint8_t *end; /* of the frame */
    int64_t id;         /* of a record that is synced */
    int32_t flag;
    bool has_checksum;
    uint64_t checksum; /* up to 10 digits: may be larger than any checksum */
};

/*
 * Read the put at the start of [at, end). False: it is incomplete or not ordinary; then `put` is
 * undefined.
 */
bool read_put(const uint8_t *at, const uint8_t *end, size_t max_body, struct put *put);

/* The same for a put in the transaction with this key. All its numbers are canonical, and it has a checksum. */
bool read_transaction_put(const uint8_t *at, const uint8_t *end, size_t max_body, struct span key, struct put *put);

/* The same for a `sync`, which has an id. */
bool read_sync(const uint8_t *at, const uint8_t *end, size_t max_body, struct put *put);

/*
 * The bytes that the put or get at the start of [at, end) has in all, where it is ordinary as far as it has come and
 * the rest is missing; one more than there are while its line is not complete. 0: it is whole, or not ordinary. With
 * `syncs` the same of a `sync`, and of nothing else.
 */
size_t missing_end(const uint8_t *at, const uint8_t *end, size_t max_body, bool syncs);

/* An ordinary get. */
struct get {
    struct span topic;
    struct span partition; /* as it is spelled */
    struct span opaque;    /* likewise, which is canonical */
    const uint8_t *end;    /* of the frame */
    int64_t offset;
    int64_t size; /* the most that it wants */
};

/* Read the get at the start of [at, end). False: it is incomplete, or anything else than ordinary. */
bool read_get(const uint8_t *at, const uint8_t *end, struct get *get);

/* The longest first line of a reply to a get: "value ", 9 digits, an opaque, CRLF. */
#define GET_HEAD_BYTES 40

/* Write this line; returns its length. */
size_t write_get_head(uint8_t head[GET_HEAD_BYTES], const struct get *get, int64_t length);

/* Write the header of a record. */
void write_header(uint8_t header[RECORD_HEADER_BYTES], uint32_t length, uint32_t checksum, int64_t id, int32_t flag);

/* Write a number in decimal, up to 20 characters; returns the position after it. */
uint8_t *write_number(uint8_t *to, int64_t number);

/* Write the reply to a put that is stored; returns its length. */
size_t write_put_reply(uint8_t reply[PUT_REPLY_BYTES], const struct put *put, int64_t id, int64_t offset);

/* A stored record that is whole. */
struct record {
    struct span body;
    const uint8_t *end;
    int64_t id;
    uint32_t checksum;
    int32_t flag;
};

/*
 * Read the record at the start of [at, end). False: it is incomplete, longer than `max_body`, or all of its header is
 * zero. Its checksum is not compared.
 */
bool read_record(const uint8_t *at, const uint8_t *end, size_t max_body, struct record *record);

/* The length of the journal's record of a put: an APPEND with the message id and the frame of the put. */
size_t append_bytes(int64_t id, size_t frame);

/* Write this record. */
void write_append(uint8_t *record, int64_t id, struct span frame);

#endif
