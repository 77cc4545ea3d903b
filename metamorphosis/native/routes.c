#ifdef __linux__

#define _GNU_SOURCE 1

#include "routes.h"

#include <string.h>

static uint32_t add_span(uint32_t hash, struct span span) {
    for (size_t index = 0; index < span.length; index++)
        hash = (hash ^ span.start[index]) * 16777619u; /* FNV-1a */
    return hash;
}

static size_t bucket_of(struct span topic, struct span partition) {
    uint32_t hash = add_span(add_span(2166136261u, topic), partition);
    return (hash ^ hash >> 16) % BUCKETS;
}

void clear_routes(struct turn *turn) {
    if (turn->appender_count > 0)
        memset(turn->appender_buckets, 0xff, sizeof turn->appender_buckets);
    if (turn->reader_count > 0)
        memset(turn->reader_buckets, 0xff, sizeof turn->reader_buckets);
    turn->appender_count = turn->reader_count = 0;
}

static bool takes(const struct appender *appender, struct span topic, struct span partition, bool syncs) {
    return appender->syncs == syncs && same_bytes(appender->topic, topic) && same_bytes(appender->partition, partition);
}

uint32_t find_appender(struct turn *turn, struct span topic, struct span partition, bool syncs) {
    uint32_t *bucket = &turn->appender_buckets[bucket_of(topic, partition)];
    for (uint32_t at = *bucket; at != NONE; at = turn->appenders[at].next)
        if (takes(&turn->appenders[at], topic, partition, syncs))
            return turn->appenders[at].store != NULL ? at : NONE;
    void *appenders = turn->appenders;
    if (!make_room_for(&appenders, &turn->appender_room, turn->appender_count + 1, sizeof *turn->appenders))
        return NONE;
    turn->appenders = appenders;
    uint32_t number = (uint32_t)turn->appender_count++;
    struct appender *made = &turn->appenders[number];
    *made = (struct appender){
        .topic = topic, .partition = partition, .syncs = syncs, .next = *bucket, .first = NONE, .last = NONE};
    *bucket = number;
    turn->calls.begin(turn->calls.context, made);
    return made->store != NULL ? number : NONE;
}

static bool reads(const struct reader *reader, struct span topic, struct span partition, int64_t offset) {
    return same_bytes(reader->topic, topic) && same_bytes(reader->partition, partition) &&
           (reader->segment == NULL || (offset >= reader->start && offset < reader->limit));
}

uint32_t find_reader(struct turn *turn, struct span topic, struct span partition, int64_t offset) {
    uint32_t *bucket = &turn->reader_buckets[bucket_of(topic, partition)];
    for (uint32_t at = *bucket; at != NONE; at = turn->readers[at].next)
        if (reads(&turn->readers[at], topic, partition, offset))
            return turn->readers[at].segment != NULL ? at : NONE;
    void *readers = turn->readers;
    if (!make_room_for(&readers, &turn->reader_room, turn->reader_count + 1, sizeof *turn->readers))
        return NONE;
    turn->readers = readers;
    uint32_t number = (uint32_t)turn->reader_count++;
    struct reader *made = &turn->readers[number];
    *made = (struct reader){.topic = topic, .partition = partition, .next = *bucket};
    *bucket = number;
    turn->calls.find(turn->calls.context, made, offset);
    return made->segment != NULL ? number : NONE;
}

#endif
