#ifdef __linux__

#define _GNU_SOURCE 1

#include "directwrites.h"

/* The objects of a store in which the turn accounts for a write. */
struct parts {
    struct log_fields *log;
    struct segment_fields *last;
    struct writer_fields *writer;
    struct flush_fields *flush;
    struct unflushed_fields *kept;
    struct total_fields *total;
};

static bool is(const Lanes *lanes, PyObject *object, int type) {
    return object != NULL && PyObject_TypeCheck(object, (PyTypeObject *)lanes->field_types[type]);
}

/* False: they are not what they usually are; a store that cannot be written at once has no such policy. */
static bool find_parts(const Lanes *lanes, PyObject *appender, struct parts *parts) {
    if (!is(lanes, appender, APPENDER_FIELDS))
        return false;
    PyObject **objects = ((struct appender_fields *)appender)->objects;
    if (!is(lanes, objects[APPENDER_STORE], LOG_FIELDS) || !is(lanes, objects[APPENDER_POLICY], FLUSH_FIELDS) ||
        !is(lanes, objects[APPENDER_WRITER], WRITER_FIELDS))
        return false;
    parts->log = (struct log_fields *)objects[APPENDER_STORE];
    parts->flush = (struct flush_fields *)objects[APPENDER_POLICY];
    parts->writer = (struct writer_fields *)objects[APPENDER_WRITER];
    PyObject *last = parts->log->objects[LOG_LAST], *kept = parts->flush->objects[FLUSH_KEPT];
    if (!is(lanes, last, SEGMENT_FIELDS) || !is(lanes, kept, UNFLUSHED_FIELDS))
        return false;
    parts->last = (struct segment_fields *)last;
    parts->kept = (struct unflushed_fields *)kept;
    PyObject *total = parts->kept->objects[UNFLUSHED_TOTAL], *pieces = parts->kept->objects[UNFLUSHED_PIECES];
    if (!is(lanes, total, TOTAL_FIELDS) || pieces == NULL || !PyList_Check(pieces))
        return false;
    parts->total = (struct total_fields *)total;
    return true;
}

/* As `Appender.begin`. */
static bool is_usual(const Lanes *lanes, const struct parts *parts) {
    PyObject *const *objects = parts->log->objects;
    return parts->last->fd >= 0 && objects[LOG_WORKER] != lanes->holding && objects[LOG_LIFE] == lanes->opened &&
           objects[LOG_STALLED] == Py_None && parts->writer->objects[WRITER_DAMAGE] == Py_None &&
           parts->flush->objects[FLUSH_ERROR] == Py_None && objects[LOG_BATCH] == Py_None &&
           objects[LOG_QUEUE] != NULL && PyObject_Size(objects[LOG_QUEUE]) == 0;
}

bool find_place(const Lanes *lanes, PyObject *store, struct appender *appender) {
    if (!is(lanes, store, LOG_FIELDS))
        return false;
    PyObject *found = ((struct log_fields *)store)->objects[LOG_APPENDER];
    struct parts parts;
    if (!find_parts(lanes, found, &parts) || (PyObject *)parts.log != store || !is_usual(lanes, &parts))
        return false;
    appender->store = Py_NewRef(found);
    appender->descriptor = (int)parts.last->fd;
    appender->position = parts.last->size;
    appender->next_offset = parts.log->next_offset;
    return true;
}

/* The time of the stores' clock, asked once a round; false: unknown. */
static bool get_time(Lanes *lanes, PyObject *seconds) {
    if (!lanes->has_time) {
        PyObject *time = seconds == NULL ? NULL : PyObject_CallNoArgs(seconds);
        lanes->time = time == NULL ? -1 : PyFloat_AsDouble(time);
        Py_XDECREF(time);
        lanes->has_time = PyErr_Occurred() == NULL;
        PyErr_Clear();
    }
    return lanes->has_time;
}

/* Whether nothing is due after a write of so many records and bytes: as `DirectFlush.appended`. */
static bool is_nothing_due(Lanes *lanes, const struct parts *parts, long long count, long long bytes) {
    const struct flush_fields *flush = parts->flush;
    return !parts->writer->failing && flush->objects[FLUSH_ERROR] == Py_None && flush->asked &&
           parts->log->objects[LOG_ON_READABLE] == Py_None && flush->unflushed + count <= flush->threshold &&
           parts->kept->size + bytes - flush->kept_in_flight <= lanes->most &&
           parts->total->unflushed + bytes <= lanes->most_in_all &&
           parts->last->size + bytes < flush->max_segment_size && get_time(lanes, flush->objects[FLUSH_SECONDS]) &&
           lanes->time - flush->flushed_at <= flush->interval;
}

/* As `Unflushed.add`. */
static bool keep(const struct parts *parts, PyObject *data, long long bytes) {
    struct unflushed_fields *kept = parts->kept;
    PyObject *pieces = kept->objects[UNFLUSHED_PIECES];
    bool is_first = PyList_Size(pieces) == 0;
    if (PyList_Append(pieces, data) != 0) {
        PyErr_Clear();
        return false;
    }
    if (is_first)
        kept->start = parts->last->size;
    kept->size += bytes;
    parts->total->unflushed += bytes;
    return true;
}

bool account(Lanes *lanes, const struct appender *appender) {
    struct parts parts;
    long long count = (long long)appender->count, bytes = (long long)appender->bytes;
    if (!find_parts(lanes, appender->store, &parts) || !is_nothing_due(lanes, &parts, count, bytes) ||
        !keep(&parts, appender->memory, bytes))
        return false;
    parts.last->size += bytes;
    parts.last->message_count += count;
    parts.log->put_count += count;
    parts.log->put_bytes += bytes - RECORD_HEADER_BYTES * count;
    parts.log->next_offset += bytes;
    parts.log->read_end = parts.log->next_offset;
    parts.flush->unflushed += count;
    return true;
}

#endif
