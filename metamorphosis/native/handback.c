#ifdef __linux__

#include "handback.h"

#include <sys/socket.h>

#include "taking.h"

static PyObject *bytes_between(const struct turn *turn, size_t start, size_t end) {
    return PyBytes_FromStringAndSize((const char *)turn->replies + start, (Py_ssize_t)(end - start));
}

/* The start of the text of a reply. */
static size_t text_start(const struct turn *turn, const struct answered *answered, uint32_t at) {
    return at == answered->first ? answered->reply_start : turn->taken[at - 1].reply_end;
}

/* A reply with its file range, of which `sent` bytes were sent; its text is in [start, end). */
static PyObject *file_reply(const struct turn *turn, PyObject *keep, const struct taken *get, size_t start, size_t end,
                            int64_t sent) {
    return PyObject_CallFunction(keep, "NOLL", bytes_between(turn, start, end), turn->readers[get->reader].segment,
                                 (long long)(get->position + sent), (long long)(get->length - sent));
}

/* The replies that were not sent, from the first unsent byte on. */
static PyObject *unsent_replies(const struct turn *turn, PyObject *keep, const struct answered *answered) {
    PyObject *replies = PyList_New(0);
    size_t start = answered->sent;
    int64_t sent = answered->sent_file;
    bool made = replies != NULL;
    for (uint32_t at = answered->reached; made && answered->has_gets && at < answered->end; at++) {
        const struct taken *taken = &turn->taken[at];
        if (taken->reader == NONE)
            continue;
        made = append_new(replies, file_reply(turn, keep, taken, start, taken->reply_end, sent));
        start = taken->reply_end;
        sent = 0;
    }
    if (made && start < answered->reply_end)
        made = append_new(replies, bytes_between(turn, start, answered->reply_end));
    if (!made)
        Py_CLEAR(replies);
    return replies;
}

/* The object that a reply waits for; NULL: an error is set. */
static PyObject *outcome_of(const struct turn *turn, const struct taken *taken) {
    if (taken->appender == NONE)
        return Py_None;
    const struct appender *appender = &turn->appenders[taken->appender];
    if (appender->outcome == NULL)
        PyErr_SetString(PyExc_RuntimeError, "a store has not reported its result");
    return appender->outcome;
}

/* The number of a record in what its reply waits for. */
static uint32_t number_of(const struct turn *turn, const struct taken *taken) {
    return taken->appender == NONE ? 0 : turn->appenders[taken->appender].before + taken->number;
}

/* All replies of a connection, each as (outcome, number of its record there, reply). */
static PyObject *single_replies(const struct turn *turn, PyObject *keep, const struct answered *answered) {
    PyObject *replies = PyList_New(0);
    bool made = replies != NULL;
    for (uint32_t at = answered->first; made && at < answered->end; at++) {
        const struct taken *taken = &turn->taken[at];
        size_t start = text_start(turn, answered, at);
        PyObject *outcome = outcome_of(turn, taken);
        made = outcome != NULL;
        if (!made)
            break;
        PyObject *reply = taken->reader == NONE ? bytes_between(turn, start, taken->reply_end)
                                                : file_reply(turn, keep, taken, start, taken->reply_end, 0);
        made = append_new(replies, Py_BuildValue("OIN", outcome, (unsigned int)number_of(turn, taken), reply));
    }
    if (!made)
        Py_CLEAR(replies);
    return replies;
}

static PyObject *held_text(const struct held *held, size_t index) {
    size_t start = index == held->first ? held->sent : held->replies[index - 1].end;
    return PyBytes_FromStringAndSize((const char *)held->texts + start, (Py_ssize_t)(held->replies[index].end - start));
}

PyObject *take_held(struct turn *turn, struct lane *lane) {
    const struct held *held = lane->held;
    PyObject *replies = PyList_New(0);
    bool made = replies != NULL;
    for (size_t index = held == NULL ? 0 : held->first; made && held != NULL && index < held->count; index++) {
        const struct held_reply *reply = &held->replies[index];
        made = append_new(replies, Py_BuildValue("OIN", reply->outcome == NULL ? Py_None : (PyObject *)reply->outcome,
                                                 (unsigned int)reply->number, held_text(held, index)));
    }
    if (!made)
        Py_CLEAR(replies);
    else
        drop_held(turn, lane);
    return replies;
}

void hand_held(struct turn *turn, int descriptor, struct lane *lane, PyObject *list) {
    Py_ssize_t size = (Py_ssize_t)lane->held->request_bytes;
    if (append_new(list, Py_BuildValue("iinN", HANDED_WAITING, descriptor, size, take_held(turn, lane))))
        return;
    PyErr_WriteUnraisable(list);
    drop_held(turn, lane);
    shutdown(descriptor, SHUT_RDWR);
}

/* Let the replies of a connection wait in its queue; they are left to Python where that is not possible. */
static void hold(struct turn *turn, struct answered *answered, PyObject *list) {
    if (!answered->waits || answered->refused || answered->end == answered->first)
        return;
    struct lane *lane = find_lane(&turn->lanes, answered->descriptor);
    answered->refused = lane == NULL || !hold_replies(turn, lane, answered);
    if (answered->refused)
        return;
    send_held(turn, answered->descriptor, lane);
    if (lane->held != NULL && (lane->held->is_full || lane->held->request_bytes > turn->max_held))
        hand_held(turn, answered->descriptor, lane, list);
}

/* Append the items of one connection. */
static bool hand_connection(struct turn *turn, PyObject *keep, const struct answered *answered, PyObject *list) {
    int descriptor = answered->descriptor;
    if (answered->refused &&
        !append_new(list, Py_BuildValue("iinN", HANDED_WAITING, descriptor, (Py_ssize_t)answered->request_bytes,
                                        single_replies(turn, keep, answered))))
        return false;
    if (answered->unsent &&
        !append_new(list, Py_BuildValue("iiN", HANDED_UNSENT, descriptor, unsent_replies(turn, keep, answered))))
        return false;
    if (answered->rest.length == 0)
        return true;
    const struct lane *lane = find_lane(&turn->lanes, descriptor);
    PyObject *rest = PyBytes_FromStringAndSize((const char *)answered->rest.start, (Py_ssize_t)answered->rest.length);
    return append_new(
        list, Py_BuildValue("iiNn", HANDED_BYTES, descriptor, rest, (Py_ssize_t)(lane == NULL ? 0 : lane->taken)));
}

void hand_back(struct turn *turn, PyObject *keep, PyObject *list) {
    for (size_t index = 0; index < turn->answered_count; index++) {
        struct answered *answered = &turn->answered[index];
        hold(turn, answered, list);
        if (!answered->refused && !answered->unsent && answered->rest.length == 0)
            continue;
        if (!hand_connection(turn, keep, answered, list)) {
            PyErr_WriteUnraisable(list);
            shutdown(answered->descriptor, SHUT_RDWR); /* a part of its stream would be missing */
        }
    }
    for (size_t index = 0; index < turn->slow_count; index++) {
        const struct ready *ready = &turn->slow[index];
        if (!append_new(list, Py_BuildValue("iiI", HANDED_EVENT, ready->descriptor, (unsigned int)ready->events)))
            PyErr_Clear(); /* the set reports it again while it is ready */
    }
}

#endif
