/* The types of Python with the fields of a store; twins: store/fields.py. */
#include "storefields.h"

#include <stddef.h>
#include <structmember.h>

static void release(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* The functions of a type with objects; all such types begin with them. */
#define WITH_OBJECTS(NAME)                                                                                             \
    static int NAME##_traverse(PyObject *self, visitproc visit, void *arg) {                                           \
        struct NAME##_fields *fields = (struct NAME##_fields *)self;                                                   \
        for (size_t index = 0; index < sizeof fields->objects / sizeof *fields->objects; index++)                      \
            Py_VISIT(fields->objects[index]);                                                                          \
        Py_VISIT(Py_TYPE(self));                                                                                       \
        return 0;                                                                                                      \
    }                                                                                                                  \
    static int NAME##_clear(PyObject *self) {                                                                          \
        struct NAME##_fields *fields = (struct NAME##_fields *)self;                                                   \
        for (size_t index = 0; index < sizeof fields->objects / sizeof *fields->objects; index++)                      \
            Py_CLEAR(fields->objects[index]);                                                                          \
        return 0;                                                                                                      \
    }                                                                                                                  \
    static void NAME##_deallocate(PyObject *self) {                                                                    \
        PyObject_GC_UnTrack(self);                                                                                     \
        NAME##_clear(self);                                                                                            \
        release(self);                                                                                                 \
    }

#define OBJECT(TYPE, NAME, INDEX) {NAME, T_OBJECT_EX, offsetof(struct TYPE##_fields, objects[INDEX]), 0, NULL}
#define FIELD(TYPE, NAME, KIND, FIELD) {NAME, KIND, offsetof(struct TYPE##_fields, FIELD), 0, NULL}
#define END {NULL, 0, 0, 0, NULL}

/* The specification of a type; COLLECTED is its flag for the garbage collector, or 0. */
#define SPECIFICATION(TYPE, NAME, COLLECTED)                                                                           \
    static PyType_Spec TYPE##_spec = {                                                                                 \
        .name = "metamorphosis.native._compiled." NAME,                                                                \
        .basicsize = sizeof(struct TYPE##_fields),                                                                     \
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | (COLLECTED),                                               \
        .slots = TYPE##_slots,                                                                                         \
    }

#define SLOTS_WITH_OBJECTS(TYPE)                                                                                       \
    static PyType_Slot TYPE##_slots[] = {                                                                              \
        {Py_tp_dealloc, TYPE##_deallocate},                                                                            \
        {Py_tp_traverse, TYPE##_traverse},                                                                             \
        {Py_tp_clear, TYPE##_clear},                                                                                   \
        {Py_tp_members, TYPE##_members},                                                                               \
        {0, NULL},                                                                                                     \
    }

#define SLOTS_WITHOUT_OBJECTS(TYPE)                                                                                    \
    static PyType_Slot TYPE##_slots[] = {{Py_tp_dealloc, release}, {Py_tp_members, TYPE##_members}, {0, NULL}}

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
    for (size_t index = 0; index < FIELD_TYPES; index++) {
        PyObject *type = PyType_FromModuleAndSpec(module, specs[index], NULL);
        int added = type == NULL ? -1 : PyModule_AddObjectRef(module, names[index], type);
        Py_XDECREF(type);
        if (added != 0)
            return -1;
    }
    return 0;
}

bool get_field_types(PyObject *module, PyObject *types[FIELD_TYPES]) {
    for (size_t index = 0; index < FIELD_TYPES; index++) {
        types[index] = module == NULL ? NULL : PyObject_GetAttrString(module, names[index]);
        if (types[index] == NULL)
            return false;
    }
    return true;
}
