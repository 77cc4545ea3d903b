#ifdef __linux__

#define _GNU_SOURCE 1

#include "line.h"

#include <errno.h>
#include <string.h>

#include "syscalls.h"
#include "turn.h"

void make_line(struct line *line) { *line = (struct line){.descriptor = NO_LINE, .out_to = NO_LINE}; }

void free_line(struct line *line) {
    free(line->out);
    free(line->flights);
    make_line(line);
}

bool is_open(const struct line *line) { return line->descriptor != NO_LINE; }

size_t flight_count(const struct line *line) { return line->count - line->first; }

struct flight *first_flight(struct line *line) {
    return line->first < line->count ? &line->flights[line->first] : NULL;
}

void drop_flight(struct line *line) {
    line->first++;
    if (line->first == line->count)
        line->first = line->count = 0;
}

/* Move the expected flights to the front, where half of the places are free. */
static void close_up(struct line *line) {
    if (line->first == 0 || line->first < line->room / 2)
        return;
    line->count -= line->first;
    memmove(line->flights, line->flights + line->first, line->count * sizeof *line->flights);
    line->first = 0;
}

bool make_flight_room(struct line *line, struct span head, const struct flight *flight) {
    close_up(line);
    void *flights = line->flights;
    if (!make_room_for(&flights, &line->room, line->count + 1, sizeof *line->flights))
        return false;
    line->flights = flights;
    void *out = line->out;
    if (!make_room_for(&out, &line->out_room, line->out_bytes + most_bytes(flight->run, flight->count, head.length), 1))
        return false;
    line->out = out;
    return true;
}

void add_flight(struct line *line, struct span head, const struct flight *flight) {
    int64_t opaque = flight->number % flight->opaques;
    uint8_t *end = write_run(line->out + line->out_bytes, head, flight->run, opaque, flight->opaques);
    line->out_bytes = (size_t)(end - line->out);
    line->out_to = line->descriptor;
    line->out_records += flight->count;
    line->flights[line->count++] = *flight;
}

enum reading take_answers(const struct flight *flight, const uint8_t **past, const uint8_t *end) {
    struct expected next = {flight->run, 0, flight->number % flight->opaques, flight->offset};
    const uint8_t *at = *past;
    enum reading last;
    size_t count = step_over(&next, flight->opaques, &at, end, &last);
    if (count < flight->count)
        return count == 0 && last == PARTIAL ? PARTIAL : OTHER;
    *past = at;
    return WHOLE;
}

size_t send_frames(const struct line *line) {
    size_t all = 0;
    while (all < line->out_bytes) {
        ssize_t sent = sys_send(line->out_to, line->out + all, line->out_bytes - all, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            break;
        all += (size_t)sent;
    }
    return all;
}

void drop_frames(struct line *line, size_t bytes) {
    line->out_bytes -= bytes;
    if (line->out_bytes > 0 && bytes > 0)
        memmove(line->out, line->out + bytes, line->out_bytes);
}

#endif
