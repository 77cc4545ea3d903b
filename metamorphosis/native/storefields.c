/* The types of Python with the fields of a store; twins: store/fields.py. */
#include "storefields.h"

#include "fieldtypes.h"

static PyMemberDef segment_members[] = {
    FIELD(segment, "start", T_LONGLONG, start),
    FIELD(segment, "size", T_LONGLONG, size),
    FIELD(segment, "message_count", T_LONGLONG, message_count),
    FIELD(segment, "fd", T_LONGLONG, fd),
    END,
};
SLOTS_WITHOUT_OBJECTS(segment);
SPECIFICATION(segment, "SegmentFields", 0);

static PyMemberDef log_members[] = {
    OBJECT(log, "last", LOG_LAST),
    OBJECT(log, "batch", LOG_BATCH),
    OBJECT(log, "_queue", LOG_QUEUE),
    OBJECT(log, "worker", LOG_WORKER),
    OBJECT(log, "life", LOG_LIFE),
    OBJECT(log, "stalled", LOG_STALLED),
    OBJECT(log, "on_readable", LOG_ON_READABLE),
    OBJECT(log, "appender", LOG_APPENDER),
    FIELD(log, "next_offset", T_LONGLONG, next_offset),
    FIELD(log, "read_end", T_LONGLONG, read_end),
    FIELD(log, "put_count", T_LONGLONG, put_count),
    FIELD(log, "put_bytes", T_LONGLONG, put_bytes),
    END,
};
WITH_OBJECTS(log)
SLOTS_WITH_OBJECTS(log);
SPECIFICATION(log, "LogFields", Py_TPFLAGS_HAVE_GC);

static PyMemberDef appender_members[] = {
    OBJECT(appender, "_store", APPENDER_STORE),
    OBJECT(appender, "_policy", APPENDER_POLICY),
    OBJECT(appender, "_writer", APPENDER_WRITER),
    END,
};
WITH_OBJECTS(appender)
SLOTS_WITH_OBJECTS(appender);
SPECIFICATION(appender, "AppenderFields", Py_TPFLAGS_HAVE_GC);

static PyMemberDef writer_members[] = {
    OBJECT(writer, "damage", WRITER_DAMAGE),
    FIELD(writer, "_failing", T_BOOL, failing),
    END,
};
WITH_OBJECTS(writer)
SLOTS_WITH_OBJECTS(writer);
SPECIFICATION(writer, "WriterFields", Py_TPFLAGS_HAVE_GC);

static PyMemberDef flush_members[] = {
    OBJECT(flush, "flush_error", FLUSH_ERROR),
    OBJECT(flush, "_kept", FLUSH_KEPT),
    OBJECT(flush, "_seconds", FLUSH_SECONDS),
    FIELD(flush, "_unflushed", T_LONGLONG, unflushed),
    FIELD(flush, "_threshold", T_LONGLONG, threshold),
    FIELD(flush, "_kept_in_flight", T_LONGLONG, kept_in_flight),
    FIELD(flush, "_max_segment_size", T_LONGLONG, max_segment_size),
    FIELD(flush, "_flushed_at", T_DOUBLE, flushed_at),
    FIELD(flush, "_interval", T_DOUBLE, interval),
    FIELD(flush, "_asked", T_BOOL, asked),
    END,
};
WITH_OBJECTS(flush)
SLOTS_WITH_OBJECTS(flush);
SPECIFICATION(flush, "FlushFields", Py_TPFLAGS_HAVE_GC);

static PyMemberDef unflushed_members[] = {
    OBJECT(unflushed, "_pieces", UNFLUSHED_PIECES),
    OBJECT(unflushed, "_total", UNFLUSHED_TOTAL),
    OBJECT(unflushed, "_chunk", UNFLUSHED_CHUNK),
    FIELD(unflushed, "_start", T_LONGLONG, start),
    FIELD(unflushed, "size", T_LONGLONG, size),
    FIELD(unflushed, "_used", T_LONGLONG, used),
    END,
};
WITH_OBJECTS(unflushed)
SLOTS_WITH_OBJECTS(unflushed);
SPECIFICATION(unflushed, "UnflushedFields", Py_TPFLAGS_HAVE_GC);

static PyMemberDef total_members[] = {FIELD(total, "unflushed", T_LONGLONG, unflushed), END};
SLOTS_WITHOUT_OBJECTS(total);
SPECIFICATION(total, "TotalFields", 0);

static const char *const names[FIELD_TYPES] = {"SegmentFields", "LogFields",       "AppenderFields", "WriterFields",
                                               "FlushFields",   "UnflushedFields", "TotalFields"};

int storefields_add(PyObject *module) {
    PyType_Spec *specs[FIELD_TYPES] = {&segment_spec, &log_spec,       &appender_spec, &writer_spec,
                                       &flush_spec,   &unflushed_spec, &total_spec};
    return add_types(module, specs, names, FIELD_TYPES);
}

bool get_field_types(PyObject *module, PyObject *types[FIELD_TYPES]) {
    return get_types(module, types, names, FIELD_TYPES);
}
