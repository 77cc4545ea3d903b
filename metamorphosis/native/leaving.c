/* The end of a round: it writes the files, then sends the replies. */
#ifdef __linux__

#define _GNU_SOURCE 1

#include <errno.h>

#include "syscalls.h"
#include "turn.h"

/* Write the records of one store with one call; the caller continues a short or failed write. */
static void write_records(struct appender *appender) {
    ssize_t written;
    do
        written = sys_pwrite(appender->descriptor, appender->data, appender->bytes, (off_t)appender->position);
    while (written < 0 && errno == EINTR);
    if (written < 0)
        appender->error = errno;
    else
        appender->written = (size_t)written;
}

/* Whether a reply of this connection acknowledges a record that is not in its file. */
static bool promises_missing(const struct turn *turn, const struct answered *answered) {
    for (uint32_t at = answered->first; at < answered->end; at++) {
        uint32_t to = turn->taken[at].appender;
        if (to != NONE && turn->appenders[to].written < turn->appenders[to].bytes)
            return true;
    }
    return false;
}

/* Send texts up to a position in `replies`; false: the socket did not take all. */
static bool send_text(struct turn *turn, struct answered *answered, size_t end, int flags) {
    while (answered->sent < end) {
        ssize_t sent = sys_send(answered->descriptor, turn->replies + answered->sent, end - answered->sent,
                                MSG_NOSIGNAL | MSG_DONTWAIT | flags);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        answered->sent += (size_t)sent;
    }
    return true;
}

/* Send the range of one get; false: the socket did not take all. */
static bool send_range(struct turn *turn, struct answered *answered, const struct taken *get) {
    off_t position = (off_t)get->position;
    ssize_t sent;
    do
        sent =
            sys_sendfile(answered->descriptor, turn->readers[get->reader].descriptor, &position, (size_t)get->length);
    while (sent < 0 && errno == EINTR);
    answered->sent_file = sent > 0 ? sent : 0;
    return answered->sent_file == get->length;
}

/* Send texts and ranges in order; false: the socket did not take all. */
static bool send_mixed(struct turn *turn, struct answered *answered) {
    for (; answered->reached < answered->end; answered->reached++) {
        const struct taken *taken = &turn->taken[answered->reached];
        if (taken->reader == NONE)
            continue;
        answered->sent_file = 0;
        if (!send_text(turn, answered, taken->reply_end, MSG_MORE) || !send_range(turn, answered, taken))
            return false;
    }
    return send_text(turn, answered, answered->reply_end, 0);
}

/* Send the replies of one connection. */
static void send_replies(struct turn *turn, struct answered *answered) {
    bool all = answered->has_gets ? send_mixed(turn, answered) : send_text(turn, answered, answered->reply_end, 0);
    answered->unsent = !all;
}

void leave_round(struct turn *turn) {
    bool failed = false;
    for (size_t index = 0; index < turn->appender_count; index++) {
        struct appender *appender = &turn->appenders[index];
        if (appender->data != NULL && appender->collects)
            appender->written = appender->bytes;
        else if (appender->data != NULL)
            write_records(appender);
        failed = failed || appender->written < appender->bytes;
    }
    for (size_t index = 0; index < turn->answered_count; index++) {
        struct answered *answered = &turn->answered[index];
        answered->refused = failed && promises_missing(turn, answered);
        if (!answered->refused && !answered->waits && answered->end > answered->first)
            send_replies(turn, answered);
    }
}

#endif
