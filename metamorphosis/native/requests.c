#ifdef __linux__

#define _GNU_SOURCE 1

#include "requests.h"

#include "routes.h"

/* Room for one more request and its reply. */
static bool make_room(struct turn *turn) {
    void *taken = turn->taken;
    if (!make_room_for(&taken, &turn->taken_room, turn->taken_count + 1, sizeof *turn->taken))
        return false;
    turn->taken = taken;
    void *replies = turn->replies;
    if (!make_room_for(&replies, &turn->reply_room, turn->reply_bytes + PUT_REPLY_BYTES, 1))
        return false;
    turn->replies = replies;
    return true;
}

/* Whether there is an id for the next record. */
static bool has_id(struct turn *turn) {
    if (!turn->has_id)
        turn->has_id = turn->calls.first_id(turn->calls.context, &turn->next_id);
    return turn->has_id;
}

/* Append a record to the list of its store. */
static void chain(struct turn *turn, struct appender *appender, uint32_t number) {
    if (appender->last == NONE)
        appender->first = number;
    else
        turn->taken[appender->last].next = number;
    appender->last = number;
}

static void add_record(struct turn *turn, struct answered *answered, uint32_t to, const struct put *put,
                       uint32_t checksum) {
    struct appender *appender = &turn->appenders[to];
    answered->waits = answered->waits || appender->collects;
    turn->reply_bytes += write_put_reply(turn->replies + turn->reply_bytes, put, put->id, appender->next_offset);
    uint32_t number = (uint32_t)turn->taken_count++;
    turn->taken[number] = (struct taken){
        .reply_end = turn->reply_bytes,
        .appender = to,
        .reader = NONE,
        .body = put->body,
        .id = put->id,
        .checksum = checksum,
        .flag = put->flag,
        .next = NONE,
        .number = (uint32_t)appender->count++,
    };
    chain(turn, appender, number);
    appender->bytes += RECORD_HEADER_BYTES + put->body.length;
    appender->next_offset += RECORD_HEADER_BYTES + (int64_t)put->body.length;
}

/*
 * Whether the checksum is right, the store takes the body, and there is room for it. A reply with a range of a file
 * does not wait: behind one, a put that collects is left.
 */
static bool may_store(struct turn *turn, const struct answered *answered, const struct put *put, uint32_t *checksum,
                      uint32_t *to) {
    *checksum = turn->crc32(put->body.start, put->body.length) & CHECKSUM_MASK;
    if (put->has_checksum && put->checksum != *checksum)
        return false;
    *to = find_appender(turn, put->topic, put->partition, answered->syncs);
    if (*to == NONE)
        return false;
    const struct appender *appender = &turn->appenders[*to];
    if ((appender->checked_only && !put->has_checksum) || (appender->collects && answered->has_gets))
        return false;
    return make_room(turn);
}

/* Take the put at `at`; returns its end, or NULL: it is left, and nothing has changed. */
static const uint8_t *take_put(struct turn *turn, struct answered *answered, const uint8_t *at, const uint8_t *end) {
    struct put put;
    if (!read_put(at, end, turn->max_body, &put))
        return NULL;
    uint32_t checksum, to;
    if (!may_store(turn, answered, &put, &checksum, &to) || !has_id(turn))
        return NULL;
    put.id = turn->next_id++;
    add_record(turn, answered, to, &put, checksum);
    if ((turn->next_id & SEQUENCE_MASK) == 0)
        turn->next_id = turn->calls.carry(turn->calls.context, turn->next_id);
    return put.end;
}

/* The same for a record of a pair's master, which has its id. */
static const uint8_t *take_sync(struct turn *turn, struct answered *answered, const uint8_t *at, const uint8_t *end) {
    struct put put;
    uint32_t checksum, to;
    if (!read_sync(at, end, turn->max_body, &put) || !may_store(turn, answered, &put, &checksum, &to))
        return NULL;
    add_record(turn, answered, to, &put, checksum);
    return put.end;
}

/* The same for a get. One behind a reply that waits is left: the range would have to stay open meanwhile. */
static const uint8_t *take_get(struct turn *turn, struct answered *answered, const uint8_t *at, const uint8_t *end,
                               int64_t *file_bytes) {
    struct get get;
    if (answered->waits || *file_bytes >= LANE_FILE_BYTES || !read_get(at, end, &get) || !make_room(turn))
        return NULL;
    uint32_t from = find_reader(turn, get.topic, get.partition, get.offset);
    if (from == NONE)
        return NULL;
    struct reader *reader = &turn->readers[from];
    int64_t length = reader->end - get.offset;
    int64_t most = get.size < reader->most ? get.size : reader->most;
    if (length > most)
        length = most;
    if (length <= 0 || (length == reader->most && length < get.size))
        return NULL; /* the record may be longer */
    turn->reply_bytes += write_get_head(turn->replies + turn->reply_bytes, &get, length);
    turn->taken[turn->taken_count++] = (struct taken){
        .reply_end = turn->reply_bytes,
        .appender = NONE,
        .reader = from,
        .next = NONE,
        .position = get.offset - reader->start,
        .length = length,
    };
    reader->count++;
    answered->has_gets = true;
    *file_bytes += length;
    return get.end;
}

const uint8_t *take_requests(struct turn *turn, struct answered *answered, const uint8_t *at, const uint8_t *end) {
    int64_t file_bytes = 0;
    while (at < end) {
        const uint8_t *past;
        if (answered->syncs)
            past = take_sync(turn, answered, at, end);
        else if (*at == 'g')
            past = take_get(turn, answered, at, end, &file_bytes);
        else
            past = take_put(turn, answered, at, end);
        if (past == NULL)
            break;
        turn->taken[turn->taken_count - 1].request = (uint32_t)(past - at);
        at = past;
    }
    return at;
}

#endif
