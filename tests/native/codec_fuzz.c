/*
 * Feeds the codec and the checksums with requests that were changed at random. Under libFuzzer this file is its target;
 * alone it makes the inputs itself: codec_fuzz SECONDS SEED.
 *
 * What is checked beside what the sanitizers see: every span lies in the input, a put ends with its body, the header
 * and the reply say what was read, and every way to compute a checksum gives the same.
 */
#include "../../metamorphosis/native/checksum.h"
#include "../../metamorphosis/native/codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_BODY 2000
#define INPUT_BYTES 4096

static void require(bool holds, const char *what) {
    if (holds)
        return;
    fprintf(stderr, "codec_fuzz: %s\n", what);
    abort();
}

static bool inside(struct span span, const uint8_t *data, size_t size) {
    return span.start >= data && span.length <= size && (size_t)(span.start - data) <= size - span.length;
}

static uint32_t read_big_endian(const uint8_t *data) {
    return (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | (uint32_t)data[3];
}

static void check_checksums(struct span body) {
    const struct checksum_way *ways = checksum_ways();
    uint32_t first = ways->crc32(body.start, body.length);
    for (const struct checksum_way *way = ways + 1; way->crc32 != NULL; way++)
        require(way->crc32(body.start, body.length) == first, "two ways to compute a checksum differ");
}

static void check_put(const struct put *put, const uint8_t *data, size_t size) {
    require(inside(put->topic, data, size) && inside(put->partition, data, size), "a name lies outside");
    require(inside(put->route, data, size) && inside(put->opaque, data, size), "a route or an opaque lies outside");
    require(inside(put->body, data, size) && put->body.length <= MAX_BODY, "a body lies outside");
    require(put->body.start + put->body.length == put->end, "a put does not end with its body");
    require(put->route.length == put->topic.length + 1 + put->partition.length, "a route is not topic and partition");
    uint8_t header[RECORD_HEADER_BYTES];
    uint8_t reply[PUT_REPLY_BYTES];
    write_header(header, (uint32_t)put->body.length, 7, INT64_MIN, put->flag);
    require(read_big_endian(header) == put->body.length, "a header has another length");
    require(read_big_endian(header + 16) == (uint32_t)put->flag, "a header has another flag");
    size_t length = write_put_reply(reply, put, INT64_MIN, INT64_MIN);
    require(length <= sizeof reply && memcmp(reply, "result 200 ", 11) == 0, "a reply is odd");
    check_checksums(put->body);
}

static void check_record(const struct record *record, const uint8_t *data, size_t size) {
    require(inside(record->body, data, size) && record->body.length <= MAX_BODY, "the body of a record lies outside");
    require(record->body.start + record->body.length == record->end, "a record does not end with its body");
    check_checksums(record->body);
}

/* The record of a put has the length that was said, and ends with the frame. */
static void check_append(struct span frame) {
    size_t length = append_bytes(INT64_MAX, frame.length);
    uint8_t *record = malloc(length);
    require(record != NULL, "no memory");
    write_append(record, INT64_MAX, frame);
    require(read_big_endian(record) == length - 4, "a record has another length");
    require(memcmp(record + length - frame.length, frame.start, frame.length) == 0, "a record has another put");
    free(record);
}

static void check_transaction_puts(const uint8_t *data, size_t size) {
    static const uint8_t name[] = {'T', 'X', ':', 's', ':', '1'};
    struct put put;
    const uint8_t *at = data;
    while (at < data + size &&
           read_transaction_put(at, data + size, MAX_BODY, (struct span){name, sizeof name}, &put)) {
        check_put(&put, data, size);
        require(put.end > at, "a put of a transaction has no bytes");
        check_append((struct span){at, (size_t)(put.end - at)});
        at = put.end;
    }
}

static void check_gets(const uint8_t *data, size_t size) {
    struct get get;
    const uint8_t *at = data;
    while (at < data + size && read_get(at, data + size, &get)) {
        require(inside(get.topic, data, size) && inside(get.partition, data, size), "a name lies outside");
        require(get.end > at && get.end <= data + size, "a get ends outside");
        require(get.offset >= 0 && get.size > 0, "a get wants nothing");
        require(get.end - at <= ORDINARY_LINE, "the line of a get is long");
        uint8_t head[GET_HEAD_BYTES];
        size_t length = write_get_head(head, &get, INT64_MIN);
        require(length <= sizeof head && memcmp(head, "value ", 6) == 0, "the head of a value is odd");
        at = get.end;
    }
}

/* What is missing is missing: the frame is not whole, and not beyond what may be. */
static void check_missing(const uint8_t *data, size_t size, bool syncs) {
    struct put put;
    struct get get;
    size_t whole = missing_end(data, data + size, MAX_BODY, syncs);
    if (whole == 0)
        return;
    require(whole > size && whole <= ORDINARY_LINE + MAX_BODY, "an end is missing that is there, or too far");
    require(!read_put(data, data + size, MAX_BODY, &put), "the end of a whole put is missing");
    require(!read_get(data, data + size, &get), "the end of a whole get is missing");
    require(!read_sync(data, data + size, MAX_BODY, &put), "the end of a whole sync is missing");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct put put;
    const uint8_t *at = data;
    while (at < data + size && read_put(at, data + size, MAX_BODY, &put)) {
        check_put(&put, data, size);
        require(put.end > at, "a put has no bytes");
        at = put.end;
    }
    for (at = data; read_sync(at, data + size, MAX_BODY, &put); at = put.end)
        check_put(&put, data, size);
    struct record record;
    for (at = data; read_record(at, data + size, MAX_BODY, &record); at = record.end)
        check_record(&record, data, size);
    check_transaction_puts(data, size);
    check_gets(data, size);
    check_missing(data, size, false);
    check_missing(data, size, true);
    return 0;
}

#ifndef LIBFUZZER

static const char *const PIECES[] = {
    "sync ",
    "sync test 0 5 0 -9223372036854775808 907060870 1\r\nhello",
    "sync t 0 0 0 0 0\r\n",
    "9223372036854775808 ",
    "put ",
    "put test 0 5 0 907060870 1\r\nhello",
    "put t 0 0 0 0\r\n",
    "put topic 12 3 -7 -1 -2147483648\r\nabc",
    "0 ",
    "-1 ",
    "\r\n",
    " ",
    "9999999999",
    "999999999 ",
    "-",
    "2147483648",
    "-2147483648",
    "put t 0 2000 0 1\r\n",
    "a b c",
    "12345678901 ",
    "get test g 0 0 100 1\r\n",
    "get t  0 5 1 -7 100\r\n",
    "get ",
    "999999999999999999 ",
    "put test 0 5 0 907060870 TX:s:1 1\r\nhello",
    "put t 0 0 -1 -1 TX:s:1 -7\r\n",
    "TX:s:1 ",
    "put t 0 00 0 0 TX:s:1 0\r\n",
};

static uint64_t random_state;

static uint32_t next_random(uint32_t below) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 33) % below;
}

/* A record whose length fits, or nearly. */
static size_t make_record(uint8_t *to, size_t room) {
    size_t length = next_random(40);
    if (room < RECORD_HEADER_BYTES + length)
        return 0;
    write_header(to, (uint32_t)length + (next_random(8) == 0), next_random(1u << 31), (int64_t)random_state, 1);
    memset(to + RECORD_HEADER_BYTES, 'x', length);
    return RECORD_HEADER_BYTES + length;
}

/* Some pieces behind each other, a few bytes changed, and cut anywhere. */
static size_t make_input(uint8_t input[INPUT_BYTES]) {
    size_t size = 0;
    bool records = next_random(2) == 0;
    for (uint32_t left = next_random(20); records && left > 0; left--)
        size += make_record(input + size, INPUT_BYTES - size);
    for (uint32_t left = records ? 0 : 1 + next_random(8); left > 0; left--) {
        const char *piece = PIECES[next_random(sizeof PIECES / sizeof *PIECES)];
        size_t length = strlen(piece);
        if (length > INPUT_BYTES - size)
            break;
        memcpy(input + size, piece, length);
        size += length;
    }
    for (uint32_t left = next_random(4); left > 0 && size > 0; left--)
        input[next_random((uint32_t)size)] = (uint8_t)next_random(256);
    return size == 0 ? 0 : next_random(4) == 0 ? next_random((uint32_t)size) : size;
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "codec_fuzz SECONDS SEED\n");
        return 2;
    }
    time_t end = time(NULL) + atoi(arguments[1]);
    random_state = strtoull(arguments[2], NULL, 10) * 2 + 1;
    uint64_t inputs = 0;
    while (time(NULL) < end)
        for (int round = 0; round < 1000; round++, inputs++) {
            uint8_t made[INPUT_BYTES];
            size_t size = make_input(made);
            uint8_t *input = malloc(size > 0 ? size : 1); /* of its exact size, so that the sanitizer sees its end */
            require(input != NULL, "no memory");
            memcpy(input, made, size);
            LLVMFuzzerTestOneInput(input, size);
            free(input);
        }
    printf("%llu inputs\n", (unsigned long long)inputs);
    return 0;
}

#endif
