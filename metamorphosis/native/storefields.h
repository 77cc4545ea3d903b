/*
 * The fields of a store that the turn reads and changes; store/fields.py says what they are for. The objects of Python
 * come first, so that the garbage collector sees all of them in one way.
 */
#ifndef METAMORPHOSIS_STOREFIELDS_H
#define METAMORPHOSIS_STOREFIELDS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

/* Of a Segment. */
struct segment_fields {
    PyObject_HEAD
    long long start, size, message_count, fd;
};

enum { LOG_LAST, LOG_BATCH, LOG_QUEUE, LOG_WORKER, LOG_LIFE, LOG_STALLED, LOG_ON_READABLE, LOG_APPENDER, LOG_OBJECTS };

/* Of a SegmentLog. */
struct log_fields {
    PyObject_HEAD
    PyObject *objects[LOG_OBJECTS];
    long long next_offset, read_end, put_count, put_bytes;
};

enum { APPENDER_STORE, APPENDER_POLICY, APPENDER_WRITER, APPENDER_OBJECTS };

/* Of an Appender. */
struct appender_fields {
    PyObject_HEAD
    PyObject *objects[APPENDER_OBJECTS];
};

enum { WRITER_DAMAGE, WRITER_OBJECTS };

/* Of a SegmentWriter. */
struct writer_fields {
    PyObject_HEAD
    PyObject *objects[WRITER_OBJECTS];
    char failing;
};

enum { FLUSH_ERROR, FLUSH_KEPT, FLUSH_SECONDS, FLUSH_OBJECTS };

/* Of a DirectFlush. */
struct flush_fields {
    PyObject_HEAD
    PyObject *objects[FLUSH_OBJECTS];
    long long unflushed, threshold, kept_in_flight, max_segment_size;
    double flushed_at, interval;
    char asked;
};

enum { UNFLUSHED_PIECES, UNFLUSHED_TOTAL, UNFLUSHED_CHUNK, UNFLUSHED_OBJECTS };

/* Of an Unflushed. */
struct unflushed_fields {
    PyObject_HEAD
    PyObject *objects[UNFLUSHED_OBJECTS];
    long long start, size, used;
};

/* Of a FlushSchedule. */
struct total_fields {
    PyObject_HEAD
    long long unflushed;
};

enum {
    SEGMENT_FIELDS,
    LOG_FIELDS,
    APPENDER_FIELDS,
    WRITER_FIELDS,
    FLUSH_FIELDS,
    UNFLUSHED_FIELDS,
    TOTAL_FIELDS,
    FIELD_TYPES
};

/* Add the types to the module; -1 with an error set. */
int storefields_add(PyObject *module);

/* New references to the types of a module, in the order above; false with an error set. */
bool get_field_types(PyObject *module, PyObject *types[FIELD_TYPES]);

#endif
