#ifdef __linux__

#define _GNU_SOURCE 1

#include "held.h"

#include <errno.h>
#include <string.h>

#include "syscalls.h"
#include "turn.h"

/* Batches */

static uint32_t *bucket_of(struct batches *batches, const void *outcome) {
    uintptr_t hash = (uintptr_t)outcome >> 4; /* objects are aligned */
    return &batches->buckets[(hash ^ hash >> 8) % BATCH_BUCKETS];
}

void make_batches(struct batches *batches) {
    *batches = (struct batches){.free = NO_BATCH};
    memset(batches->buckets, 0xff, sizeof batches->buckets);
}

void free_batches(struct batches *batches) {
    for (size_t index = 0; index < batches->count; index++)
        free(batches->all[index].lanes);
    free(batches->all);
    make_batches(batches);
}

struct batch *find_batch(const struct batches *batches, const void *outcome) {
    uint32_t at = *bucket_of((struct batches *)batches, outcome);
    while (at != NO_BATCH && batches->all[at].outcome != outcome)
        at = batches->all[at].next;
    return at == NO_BATCH ? NULL : &batches->all[at];
}

struct batch *add_batch(struct batches *batches, void *outcome, bool *is_new) {
    struct batch *found = find_batch(batches, outcome);
    *is_new = found == NULL;
    if (found != NULL)
        return found;
    uint32_t at = batches->free;
    if (at == NO_BATCH) {
        void *all = batches->all;
        if (!make_room_for(&all, &batches->room, batches->count + 1, sizeof *batches->all))
            return NULL;
        batches->all = all;
        at = (uint32_t)batches->count++;
        batches->all[at] = (struct batch){.next = NO_BATCH};
    }
    struct batch *made = &batches->all[at];
    batches->free = made->next;
    uint32_t *bucket = bucket_of(batches, outcome);
    made->outcome = outcome;
    made->lane_count = 0;
    made->next = *bucket;
    *bucket = at;
    batches->used++;
    return made;
}

void remove_batch(struct batches *batches, struct batch *batch) {
    uint32_t number = (uint32_t)(batch - batches->all);
    uint32_t *link = bucket_of(batches, batch->outcome);
    while (*link != number)
        link = &batches->all[*link].next;
    *link = batch->next;
    batch->outcome = NULL;
    batch->next = batches->free;
    batches->free = number;
    batches->used--;
}

/* Note that a connection has a reply that waits for the batch. */
static bool add_lane(struct batch *batch, int descriptor) {
    if (batch->lane_count > 0 && batch->lanes[batch->lane_count - 1] == descriptor)
        return true;
    void *lanes = batch->lanes;
    if (!make_room_for(&lanes, &batch->lane_room, batch->lane_count + 1, sizeof *batch->lanes))
        return false;
    batch->lanes = lanes;
    batch->lanes[batch->lane_count++] = descriptor;
    return true;
}

/* Queues */

void free_held(struct held *held) {
    if (held == NULL)
        return;
    free(held->texts);
    free(held->replies);
    free(held);
}

void free_spare(struct spare *spare) {
    while (spare->first != NULL) {
        struct held *held = spare->first;
        spare->first = held->next;
        free_held(held);
    }
    spare->count = 0;
}

/* An empty queue; NULL: there is no memory. */
static struct held *new_held(struct spare *spare) {
    struct held *held = spare->first;
    if (held == NULL) {
        held = sys_realloc(NULL, sizeof *held);
        if (held != NULL)
            *held = (struct held){0};
        return held;
    }
    spare->first = held->next;
    spare->count--;
    return held;
}

/* Keep an empty queue for later. */
static void put_aside(struct spare *spare, struct held *held) {
    if (spare->count >= MAX_SPARE || held->text_room > SPARE_BYTES) {
        free_held(held);
        return;
    }
    *held = (struct held){
        .next = spare->first,
        .texts = held->texts,
        .text_room = held->text_room,
        .replies = held->replies,
        .reply_room = held->reply_room,
    };
    spare->first = held;
    spare->count++;
}

/* Make room for more replies, at the place of those that have left. */
static bool make_room(struct held *held, size_t bytes, size_t count) {
    if (held->first > 0) {
        memmove(held->texts, held->texts + held->sent, held->bytes - held->sent);
        held->count -= held->first;
        memmove(held->replies, held->replies + held->first, held->count * sizeof *held->replies);
        for (size_t index = 0; index < held->count; index++)
            held->replies[index].end -= (uint32_t)held->sent;
        held->bytes -= held->sent;
        held->sent = held->first = 0;
    }
    void *texts = held->texts;
    if (!make_room_for(&texts, &held->text_room, held->bytes + bytes, 1))
        return false;
    held->texts = texts;
    void *replies = held->replies;
    if (!make_room_for(&replies, &held->reply_room, held->count + count, sizeof *held->replies))
        return false;
    held->replies = replies;
    return true;
}

/* Note with each batch that replies of this connection wait for it; false also where one is decided already. */
static bool add_to_batches(struct turn *turn, const struct answered *answered) {
    uint32_t last = NONE;
    for (uint32_t at = answered->first; at < answered->end; at++) {
        uint32_t to = turn->taken[at].appender;
        if (to == last || !turn->appenders[to].collects)
            continue;
        struct batch *batch = find_batch(&turn->batches, turn->appenders[to].outcome);
        if (batch == NULL || !add_lane(batch, answered->descriptor))
            return false;
        last = to;
    }
    return true;
}

static void add_reply(struct turn *turn, struct held *held, const struct taken *taken, size_t end) {
    const struct appender *appender = &turn->appenders[taken->appender];
    held->replies[held->count++] = (struct held_reply){
        .outcome = appender->collects ? appender->outcome : NULL,
        .end = (uint32_t)end,
        .number = appender->before + taken->number,
        .request = taken->request,
    };
    held->request_bytes += taken->request;
    turn->held_bytes += taken->request;
}

bool hold_replies(struct turn *turn, struct lane *lane, const struct answered *answered) {
    size_t bytes = answered->reply_end - answered->reply_start;
    size_t count = answered->end - answered->first;
    struct held *held = lane->held != NULL ? lane->held : new_held(&turn->spare);
    if (held == NULL)
        return false;
    if (!make_room(held, bytes, count) || !add_to_batches(turn, answered)) {
        if (lane->held == NULL)
            put_aside(&turn->spare, held);
        return false;
    }
    lane->held = held;
    size_t before = held->bytes;
    memcpy(held->texts + before, turn->replies + answered->reply_start, bytes);
    held->bytes += bytes;
    for (uint32_t at = answered->first; at < answered->end; at++)
        add_reply(turn, held, &turn->taken[at], before + (turn->taken[at].reply_end - answered->reply_start));
    return true;
}

bool let_leave(struct held *held, const void *outcome) {
    bool found = false;
    for (size_t index = held->first; index < held->count; index++) {
        if (held->replies[index].outcome != outcome)
            continue;
        held->replies[index].outcome = NULL;
        found = true;
    }
    return found;
}

/* Forget a reply that leaves. */
static void leaves(struct turn *turn, struct held *held, const struct held_reply *reply) {
    held->request_bytes -= reply->request;
    turn->held_bytes -= reply->request;
    held->first++;
}

void send_held(struct turn *turn, int descriptor, struct lane *lane) {
    struct held *held = lane->held;
    size_t end = held->first;
    while (end < held->count && held->replies[end].outcome == NULL)
        end++;
    if (end == held->first)
        return;
    size_t bytes = held->replies[end - 1].end;
    while (held->sent < bytes) {
        ssize_t sent = sys_send(descriptor, held->texts + held->sent, bytes - held->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            break;
        held->sent += (size_t)sent;
    }
    while (held->first < end && held->replies[held->first].end <= held->sent)
        leaves(turn, held, &held->replies[held->first]);
    held->is_full = held->sent < bytes;
    if (held->first < held->count)
        return;
    lane->held = NULL;
    put_aside(&turn->spare, held);
}

void drop_held(struct turn *turn, struct lane *lane) {
    struct held *held = lane->held;
    if (held == NULL)
        return;
    turn->held_bytes -= held->request_bytes;
    lane->held = NULL;
    put_aside(&turn->spare, held);
}

#endif
