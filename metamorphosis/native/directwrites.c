#ifdef __linux__

#define _GNU_SOURCE 1

#include "directwrites.h"

/*
 * Most writes to one of many stores are small. Memory for each of them would cost a tenth of the processor's time: the
 * allocator looks for each piece of more than 1 KiB, and each is out of the caches when it is freed.
 */
#define CHUNK_BYTES (16 << 10)
#define MOST_IN_CHUNK (CHUNK_BYTES / 4) /* so at most a quarter is not used */

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

static PyObject *chunk_of(const struct unflushed_fields *kept) {
    PyObject *chunk = kept->objects[UNFLUSHED_CHUNK];
    return chunk != NULL && PyBytes_Check(chunk) && kept->used >= 0 ? chunk : NULL;
}

/* Where the next records may go, and how many bytes; NULL: nowhere. */
static uint8_t *end_of(const struct unflushed_fields *kept, long long *room) {
    PyObject *chunk = chunk_of(kept);
    *room = chunk == NULL ? 0 : PyBytes_Size(chunk) - kept->used;
    return chunk == NULL ? NULL : (uint8_t *)PyBytes_AsString(chunk) + kept->used;
}

/* Begin a chunk; takes the reference. */
static void set_chunk(struct unflushed_fields *kept, PyObject *chunk) {
    PyObject *before = kept->objects[UNFLUSHED_CHUNK];
    kept->objects[UNFLUSHED_CHUNK] = chunk;
    kept->used = 0;
    Py_XDECREF(before);
}

/* As `Unflushed.close_chunk`; false: there is no memory, and nothing has changed. */
static bool close_chunk(struct unflushed_fields *kept) {
    PyObject *chunk = chunk_of(kept);
    if (chunk != NULL && kept->used > 0) {
        PyObject *view = PyMemoryView_FromObject(chunk);
        PyObject *piece = view == NULL ? NULL : PySequence_GetSlice(view, 0, (Py_ssize_t)kept->used);
        bool added = piece != NULL && PyList_Append(kept->objects[UNFLUSHED_PIECES], piece) == 0;
        Py_XDECREF(view);
        Py_XDECREF(piece);
        if (!added) {
            PyErr_Clear();
            return false;
        }
    }
    set_chunk(kept, Py_NewRef(Py_None));
    return true;
}

uint8_t *find_room(const Lanes *lanes, const struct appender *appender, PyObject **memory) {
    struct parts parts;
    if (appender->collects || appender->bytes > MOST_IN_CHUNK || !find_parts(lanes, appender->store, &parts))
        return NULL;
    long long room;
    uint8_t *end = end_of(parts.kept, &room);
    if (room < (long long)appender->bytes) {
        PyObject *chunk = close_chunk(parts.kept) ? PyBytes_FromStringAndSize(NULL, CHUNK_BYTES) : NULL;
        if (chunk == NULL) {
            PyErr_Clear();
            return NULL;
        }
        set_chunk(parts.kept, chunk);
        end = end_of(parts.kept, &room);
    }
    *memory = Py_NewRef(chunk_of(parts.kept));
    return end;
}

/* Keep the data of an appender: in the chunk, where they stand already, or as a piece; false: nothing has changed. */
static bool keep_data(struct unflushed_fields *kept, const struct appender *appender) {
    long long room;
    if (appender->memory == chunk_of(kept) && appender->data == end_of(kept, &room)) {
        kept->used += (long long)appender->bytes;
        return true;
    }
    if (PyBytes_Size(appender->memory) != (Py_ssize_t)appender->bytes)
        return false; /* in a chunk that was closed meanwhile */
    if (close_chunk(kept) && PyList_Append(kept->objects[UNFLUSHED_PIECES], appender->memory) == 0)
        return true;
    PyErr_Clear();
    return false;
}

/* As `Unflushed.add`. */
static bool keep(const struct parts *parts, const struct appender *appender) {
    struct unflushed_fields *kept = parts->kept;
    long long bytes = (long long)appender->bytes;
    bool is_first = PyList_Size(kept->objects[UNFLUSHED_PIECES]) == 0 && kept->used == 0;
    if (!keep_data(kept, appender))
        return false;
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
        !keep(&parts, appender))
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

void withdraw(const Lanes *lanes, PyObject *appender) {
    if (!is(lanes, appender, APPENDER_FIELDS))
        return;
    PyObject *log = ((struct appender_fields *)appender)->objects[APPENDER_STORE];
    if (!is(lanes, log, LOG_FIELDS))
        return;
    PyObject **stalled = &((struct log_fields *)log)->objects[LOG_STALLED], *before = *stalled;
    *stalled = Py_NewRef(lanes->unknown_end);
    Py_XDECREF(before);
}

#endif
