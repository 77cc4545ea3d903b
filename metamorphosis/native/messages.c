/*
 * The messages of a fetched piece of a log. Their numbers are in the message itself, not objects of their own; and the
 * garbage collector is not told of a message, whose fields lead to no cycle. Twin: client/messagefields.py.
 */
#include "messages.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <structmember.h>

#include "checksum.h"
#include "codec.h"
#include "taking.h"

struct message {
    PyObject_HEAD
    PyObject *topic, *partition;
    PyObject *piece; /* of the log */
    long long offset, id;
    Py_ssize_t start, end; /* of the body in the piece */
    int flag;
};

/* The body, by a copy. */
static PyObject *get_body(PyObject *self, void *ignored) {
    (void)ignored;
    struct message *message = (struct message *)self;
    if (message->piece == NULL) {
        PyErr_SetString(PyExc_AttributeError, "body");
        return NULL;
    }
    if (!PyBytes_Check(message->piece) || message->start < 0 || message->start > message->end ||
        message->end > PyBytes_Size(message->piece))
        return PySequence_GetSlice(message->piece, message->start, message->end);
    return PyBytes_FromStringAndSize(PyBytes_AsString(message->piece) + message->start, message->end - message->start);
}

static PyObject *get_next_offset(PyObject *self, void *ignored) {
    (void)ignored;
    struct message *message = (struct message *)self;
    return PyLong_FromLongLong(message->offset + RECORD_HEADER_BYTES + message->end - message->start);
}

static void deallocate(PyObject *self) {
    struct message *message = (struct message *)self;
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(message->topic);
    Py_XDECREF(message->partition);
    Py_XDECREF(message->piece);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMemberDef members[] = {
    {"topic", T_OBJECT_EX, offsetof(struct message, topic), 0, NULL},
    {"partition", T_OBJECT_EX, offsetof(struct message, partition), 0, NULL},
    {"offset", T_LONGLONG, offsetof(struct message, offset), 0, NULL},
    {"id", T_LONGLONG, offsetof(struct message, id), 0, NULL},
    {"flag", T_INT, offsetof(struct message, flag), 0, NULL},
    {"_piece", T_OBJECT_EX, offsetof(struct message, piece), 0, NULL},
    {"_start", T_PYSSIZET, offsetof(struct message, start), 0, NULL},
    {"_end", T_PYSSIZET, offsetof(struct message, end), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef computed[] = {
    {"body", get_body, NULL, "The body of the record, including the attribute.", NULL},
    {"next_offset", get_next_offset, NULL, "The offset of the next record.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, deallocate},
    {Py_tp_members, members},
    {Py_tp_getset, computed},
    {Py_tp_doc, (void *)"The fields of a received message; see client/messagefields.py."},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "metamorphosis.native._compiled.MessageFields",
    .basicsize = sizeof(struct message),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = slots,
};

PyObject *messages_add(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (type != NULL && PyModule_AddType(module, (PyTypeObject *)type) != 0)
        Py_CLEAR(type);
    return type;
}

/* The reading of messages from a piece. */
struct reading {
    PyTypeObject *type;                  /* of the messages */
    allocfunc allocate;                  /* of the type */
    bool is_collected;                   /* its instances begin under the garbage collector */
    PyObject *topic, *partition, *piece; /* borrowed from the caller */
    PyObject *messages;                  /* likewise: the list of the results */
    const uint8_t *data;                 /* the whole piece */
    long long origin;                    /* its offset in the partition */
};

/* Append a message, made without its constructor, which would be half of the cost. */
static bool append_message(struct reading *reading, const uint8_t *at, const struct record *record) {
    PyObject *made = reading->allocate(reading->type, 0);
    if (made == NULL)
        return false;
    if (reading->is_collected)
        PyObject_GC_UnTrack(made);
    struct message *message = (struct message *)made;
    message->topic = Py_NewRef(reading->topic);
    message->partition = Py_NewRef(reading->partition);
    message->piece = Py_NewRef(reading->piece);
    message->offset = reading->origin + (at - reading->data);
    message->id = record->id;
    message->flag = record->flag;
    message->start = record->body.start - reading->data;
    message->end = message->start + (Py_ssize_t)record->body.length;
    return append_new(reading->messages, made);
}

/* Make messages of the records in [at, end), up to the first that is not readable; NULL after an error. */
static const uint8_t *append_messages(struct reading *reading, const uint8_t *at, const uint8_t *end, Py_ssize_t limit,
                                      size_t max_body) {
    uint32_t (*crc32)(const uint8_t *, size_t) = checksum_ways()->crc32;
    struct record record;
    for (; limit > 0 && read_record(at, end, max_body, &record); limit--) {
        if ((crc32(record.body.start, record.body.length) & CHECKSUM_MASK) != record.checksum)
            break;
        if (!append_message(reading, at, &record))
            return NULL;
        at = record.end;
    }
    return at;
}

const char identities_doc[] = "identities(messages) -> bytes\n--\n\n"
                              "Id and offset of each message, as two int64; see client/delivery/duplicates.py.";

PyObject *pack_identities(PyTypeObject *fields, PyObject *messages) {
    if (!PyList_Check(messages)) {
        PyErr_SetString(PyExc_TypeError, "identities: a list is needed");
        return NULL;
    }
    Py_ssize_t count = PyList_Size(messages);
    PyObject *packed = PyBytes_FromStringAndSize(NULL, count * 2 * (Py_ssize_t)sizeof(int64_t));
    if (packed == NULL)
        return NULL;
    char *to = PyBytes_AsString(packed);
    for (Py_ssize_t index = 0; index < count; index++) {
        PyObject *each = PyList_GetItem(messages, index);
        if (!PyObject_TypeCheck(each, fields)) {
            Py_DECREF(packed);
            PyErr_SetString(PyExc_TypeError, "identities: a list of messages is needed");
            return NULL;
        }
        int64_t identity[] = {((struct message *)each)->id, ((struct message *)each)->offset};
        memcpy(to, identity, sizeof identity);
        to += sizeof identity;
    }
    return packed;
}

const char read_records_doc[] =
    "read_records(piece, position, limit, max_body, origin, type, topic, partition, messages) -> int\n--\n\n"
    "Append a message for each readable record of the piece; returns the position after the last.";

PyObject *read_messages(PyTypeObject *fields, PyObject *arguments) {
    struct reading reading;
    Py_ssize_t position, limit, max_body;
    PyObject *type;
    if (!PyArg_ParseTuple(arguments, "SnnnLOOOO!:read_records", &reading.piece, &position, &limit, &max_body,
                          &reading.origin, &type, &reading.topic, &reading.partition, &PyList_Type, &reading.messages))
        return NULL;
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(reading.piece, &data, &size) != 0)
        return NULL;
    if (!PyType_Check(type) || !PyType_IsSubtype((PyTypeObject *)type, fields)) {
        PyErr_SetString(PyExc_TypeError, "read_records: a type of messages is needed");
        return NULL;
    }
    if (position < 0 || position > size || max_body < 0) {
        PyErr_SetString(PyExc_ValueError, "read_records: a position in the piece and a size are needed");
        return NULL;
    }
    reading.type = (PyTypeObject *)type;
    reading.allocate = (allocfunc)PyType_GetSlot(reading.type, Py_tp_alloc);
    reading.is_collected = (PyType_GetFlags(reading.type) & Py_TPFLAGS_HAVE_GC) != 0;
    reading.data = (const uint8_t *)data;
    const uint8_t *past =
        append_messages(&reading, reading.data + position, reading.data + size, limit, (size_t)max_body);
    return past == NULL ? NULL : PyLong_FromSsize_t(past - reading.data);
}
