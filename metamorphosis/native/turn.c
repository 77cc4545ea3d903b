#ifdef __linux__

#define _GNU_SOURCE 1

#include "turn.h"

#include <errno.h>
#include <string.h>

#include "checksum.h"
#include "requests.h"
#include "routes.h"
#include "syscalls.h"

bool make_room_for(void **array, size_t *room, size_t wanted, size_t each) {
    if (wanted <= *room)
        return true;
    size_t more = *room > 0 ? 2 * *room : 64;
    while (more < wanted)
        more *= 2;
    void *grown = sys_realloc(*array, more * each);
    if (grown == NULL)
        return false;
    *array = grown;
    *room = more;
    return true;
}

bool make_turn(struct turn *turn, int set, size_t max_body, size_t max_held, struct calls calls) {
    *turn = (struct turn){.set = set,
                          .lone = -1,
                          .max_body = max_body,
                          .max_held = max_held,
                          .calls = calls,
                          .crc32 = checksum_ways()->crc32};
    memset(turn->appender_buckets, 0xff, sizeof turn->appender_buckets);
    memset(turn->reader_buckets, 0xff, sizeof turn->reader_buckets);
    make_batches(&turn->batches);
    make_line(&turn->line);
    turn->area = sys_realloc(NULL, AREA_BYTES);
    if (turn->area == NULL)
        return false;
    make_alarm(&turn->alarm, set); /* last: after a failure nothing is freed */
    return true;
}

void free_turn(struct turn *turn) {
    free_alarm(&turn->alarm);
    free_lanes(&turn->lanes);
    free_batches(&turn->batches);
    free_line(&turn->line);
    free_spare(&turn->spare);
    free(turn->area);
    free(turn->appenders);
    free(turn->readers);
    free(turn->taken);
    free(turn->replies);
    free(turn->answered);
}

/* Leave a ready socket to the caller. */
static void leave_socket(struct turn *turn, int descriptor, uint32_t events) {
    turn->slow[turn->slow_count++] = (struct ready){descriptor, events};
}

/* Keep the beginning of an ordinary request for the next turn; leave other bytes to the caller. */
static void keep_rest(struct turn *turn, struct lane *lane, struct answered *answered, const uint8_t *end) {
    struct span rest = answered->rest;
    if (rest.length > 0) {
        size_t whole = missing_end(rest.start, end, turn->max_body, lane->syncs);
        if (whole > 0 && whole <= LEFT_BYTES && keep_left(lane, rest.start, rest.length)) {
            answered->rest.length = 0;
            return;
        }
    }
    keep_left(lane, NULL, 0); /* needs no memory */
}

/* Take the requests of one connection: `count` received bytes, after the bytes left over from the last turn. */
static void take_chunk(struct turn *turn, int descriptor, struct lane *lane, size_t count) {
    const uint8_t *start = turn->area + turn->area_used;
    const uint8_t *end = start + lane->length + count;
    struct answered *answered = &turn->answered[turn->answered_count++];
    *answered = (struct answered){
        .descriptor = descriptor,
        .syncs = lane->syncs,
        .answers = lane->answers,
        .waits = lane->held != NULL,
        .first = (uint32_t)turn->taken_count,
    };
    answered->reply_start = answered->sent = turn->reply_bytes;
    turn->area_used += lane->length + count;
    const uint8_t *past = lane->answers ? start : take_requests(turn, answered, start, end);
    answered->request_bytes = (size_t)(past - start);
    lane->taken += answered->request_bytes;
    turn->request_bytes += answered->request_bytes;
    answered->end = (uint32_t)turn->taken_count;
    answered->reached = answered->first;
    answered->reply_end = turn->reply_bytes;
    answered->rest = (struct span){past, (size_t)(end - past)};
    lane->active = true;
    if (lane->answers)
        keep_left(lane, NULL, 0); /* needs no memory */
    else
        keep_rest(turn, lane, answered, end);
}

/* Serve one socket; false: there is no room for it in this round. */
static bool serve(struct turn *turn, int descriptor, uint32_t events) {
    struct lane *lane = find_lane(&turn->lanes, descriptor);
    if (lane == NULL || !(events & EPOLLIN)) {
        leave_socket(turn, descriptor, events);
        return true;
    }
    if (AREA_BYTES - turn->area_used < ROOM_BYTES + lane->length)
        return false;
    void *all = turn->answered;
    if (!make_room_for(&all, &turn->answered_room, turn->answered_count + 1, sizeof *turn->answered)) {
        leave_socket(turn, descriptor, events);
        return true;
    }
    turn->answered = all;
    uint8_t *to = turn->area + turn->area_used;
    size_t room = AREA_BYTES - turn->area_used;
    if (room > LANE_BYTES)
        room = LANE_BYTES;
    ssize_t count = sys_recv(descriptor, to + lane->length, room - lane->length, 0);
    if (count > 0) {
        if (lane->length > 0)
            memcpy(to, lane->left, lane->length);
        take_chunk(turn, descriptor, lane, (size_t)count);
    } else if (count == 0) {
        leave_socket(turn, descriptor, EPOLLIN);
    } else if (errno != EAGAIN && errno != EINTR) {
        leave_socket(turn, descriptor, EPOLLERR);
    }
    return true;
}

bool has_ready(const struct turn *turn) { return turn->ready_at < turn->ready_count; }

bool look(struct turn *turn, int milliseconds) {
    if (has_ready(turn))
        return true;
    turn->ready_at = 0;
    turn->ready_count = sys_epoll_wait(turn->set, turn->events, MAX_EVENTS, milliseconds);
    if (turn->alarm.is_set && forget_ready(turn, turn->alarm.descriptor))
        turn->alarm.is_set = false; /* once */
    return turn->ready_count > 0;
}

bool forget_ready(struct turn *turn, int descriptor) {
    int kept = turn->ready_at, count = turn->ready_count;
    for (int at = turn->ready_at; at < count; at++)
        if (turn->events[at].data.fd != descriptor)
            turn->events[kept++] = turn->events[at];
    if (has_ready(turn))
        turn->ready_count = kept;
    return turn->ready_count < count;
}

bool receive_round(struct turn *turn) {
    clear_routes(turn);
    turn->taken_count = turn->answered_count = turn->slow_count = 0;
    turn->area_used = turn->reply_bytes = 0;
    turn->has_id = false;
    if (!look(turn, 0))
        return false;
    for (; turn->ready_at < turn->ready_count; turn->ready_at++, turn->served++) {
        const struct epoll_event *event = &turn->events[turn->ready_at];
        if (!serve(turn, event->data.fd, event->events))
            break;
        turn->last = event->data.fd;
    }
    return true;
}

void fill_records(struct turn *turn, const struct appender *appender, uint8_t *data) {
    for (uint32_t at = appender->first; at != NONE; at = turn->taken[at].next) {
        const struct taken *taken = &turn->taken[at];
        write_header(data, (uint32_t)taken->body.length, taken->checksum, taken->id, taken->flag);
        data += RECORD_HEADER_BYTES;
        memcpy(data, taken->body.start, taken->body.length);
        data += taken->body.length;
    }
}

#endif
