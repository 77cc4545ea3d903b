/*
 * The twin of `scan` of broker/hotpath: ordinary puts of a chunk become records of the batches and replies of a group,
 * as broker/hotpath/contract.py says. Needs Python's limited API of 3.11.
 */
#include "scan.h"

#include "checksum.h"
#include "taking.h"

#define VIEW_BYTES 4096 /* from this size on a body is sliced from the source instead of copied */

/* The puts of one chunk that is being taken in; or the records of a master, which have their ids. */
struct taking {
    struct scan_state *state;
    bool syncs;
    PyObject *source, *routes, *ids, *group;  /* borrowed from the caller */
    PyObject *puts, *refuse, *replies, *runs; /* owned */
    PyObject *store, *batch, *pieces;         /* owned; those of the last put's partition */
    const uint8_t *data;                      /* the whole chunk */
    struct span route;                        /* of `store` */
    size_t max_body;
    bool checked_only; /* a put without a checksum is not ordinary */
    int64_t next_id, next_offset;
};

/* Replace an owned reference; takes over `value`. */
static void set(PyObject **place, PyObject *value) {
    PyObject *old = *place;
    *place = value;
    Py_XDECREF(old);
}

/* An attribute that is a number. */
static bool get_number(PyObject *object, PyObject *name, int64_t *number) {
    PyObject *value = PyObject_GetAttr(object, name);
    if (value == NULL)
        return false;
    *number = PyLong_AsLongLong(value);
    Py_DECREF(value);
    return *number != -1 || PyErr_Occurred() == NULL;
}

static bool set_number(PyObject *object, PyObject *name, int64_t number) {
    PyObject *value = PyLong_FromLongLong(number);
    if (value == NULL)
        return false;
    int result = PyObject_SetAttr(object, name, value);
    Py_DECREF(value);
    return result == 0;
}

/* Write the offset of the next record to the store of the last puts. */
static bool leave_store(struct taking *taking) {
    bool told = taking->store == NULL || set_number(taking->store, taking->state->next_offset, taking->next_offset);
    set(&taking->pieces, NULL);
    set(&taking->batch, NULL);
    set(&taking->store, NULL);
    return told;
}

/* The store that takes the puts of a route; NULL without an error if there is none. */
static PyObject *find_store(struct taking *taking, const struct put *put) {
    PyObject *topic = bytes_of(put->topic);
    PyObject *partition = bytes_of(put->partition);
    PyObject *key = topic == NULL || partition == NULL ? NULL : PyTuple_Pack(2, topic, partition);
    PyObject *store = key == NULL ? NULL : PyDict_GetItemWithError(taking->puts, key);
    Py_XINCREF(store);
    Py_XDECREF(key);
    Py_XDECREF(partition);
    Py_XDECREF(topic);
    return store;
}

/* The batch that collects in `store`, opened if there is none; NOT_ORDINARY if the store refuses. */
static enum step open_batch(struct scan_state *state, PyObject *store, PyObject **batch) {
    *batch = PyObject_GetAttr(store, state->batch);
    if (*batch == Py_None) {
        Py_DECREF(*batch);
        *batch = PyObject_CallMethodObjArgs(store, state->open_batch, NULL);
        if (*batch == NULL && PyErr_ExceptionMatches(state->store_error)) {
            PyErr_Clear();
            return NOT_ORDINARY;
        }
    }
    return *batch == NULL ? FAILED : TAKEN;
}

/* Begin a run of replies that wait for the batch of the present store. */
static bool begin_run(struct taking *taking) {
    Py_ssize_t replies = PyList_Size(taking->replies);
    PyObject *count = PyObject_GetAttr(taking->batch, taking->state->count);
    return append_new(taking->runs, Py_BuildValue("(OnNO)", taking->batch, replies, count, taking->refuse));
}

/* Make the partition of `put` the one that the next records go to. */
static enum step enter_store(struct taking *taking, const struct put *put) {
    if (taking->store != NULL && same_bytes(taking->route, put->route))
        return TAKEN;
    PyObject *store = find_store(taking, put);
    if (store == NULL)
        return PyErr_Occurred() != NULL ? FAILED : NOT_ORDINARY;
    PyObject *batch = NULL;
    enum step step = leave_store(taking) ? open_batch(taking->state, store, &batch) : FAILED;
    if (step != TAKEN) {
        Py_DECREF(store);
        return step;
    }
    taking->store = store;
    taking->batch = batch;
    taking->pieces = PyObject_GetAttr(batch, taking->state->pieces);
    taking->route = put->route;
    if (taking->pieces == NULL || !get_number(store, taking->state->next_offset, &taking->next_offset)) {
        /* The offset is unknown: leave_store must not write it. */
        set(&taking->store, NULL);
        return FAILED;
    }
    return begin_run(taking) ? TAKEN : FAILED;
}

/* The body as a piece: copied, or a slice of the source when that costs less. */
static PyObject *body_piece(struct taking *taking, struct span body) {
    if (body.length < VIEW_BYTES)
        return bytes_of(body);
    Py_ssize_t start = body.start - taking->data;
    return PySequence_GetSlice(taking->source, start, start + (Py_ssize_t)body.length);
}

/* Append header and body to the pieces, both or none; releases both. */
static bool append_pieces(PyObject *pieces, PyObject *header, PyObject *body) {
    Py_ssize_t before = PyList_Size(pieces);
    bool added = header != NULL && body != NULL && before >= 0 && PyList_Append(pieces, header) == 0;
    if (added && PyList_Append(pieces, body) != 0) {
        added = false;
        PyList_SetSlice(pieces, before, before + 1, NULL);
    }
    Py_XDECREF(header);
    Py_XDECREF(body);
    return added;
}

/* Add the record to its batch and the reply to the group. */
static bool add_record(struct taking *taking, const struct put *put, uint32_t checksum) {
    uint8_t header[RECORD_HEADER_BYTES];
    uint8_t reply[PUT_REPLY_BYTES];
    int64_t id = taking->syncs ? put->id : taking->next_id;
    write_header(header, (uint32_t)put->body.length, checksum, id, put->flag);
    size_t length = write_put_reply(reply, put, id, taking->next_offset);
    PyObject *piece = bytes_of((struct span){header, sizeof header});
    if (!append_pieces(taking->pieces, piece, body_piece(taking, put->body)))
        return false;
    taking->next_offset += RECORD_HEADER_BYTES + (int64_t)put->body.length;
    if (!taking->syncs)
        taking->next_id++;
    return append_new(taking->replies, bytes_of((struct span){reply, length}));
}

/* The ids of a millisecond are used up: get the next one from `ids`. */
static bool carry_id(struct taking *taking) {
    PyObject *overflowed = PyLong_FromLongLong(taking->next_id);
    if (overflowed == NULL)
        return false;
    PyObject *next = PyObject_CallMethodObjArgs(taking->ids, taking->state->carry, overflowed, NULL);
    Py_DECREF(overflowed);
    if (next == NULL)
        return false;
    taking->next_id = PyLong_AsLongLong(next);
    Py_DECREF(next);
    return taking->next_id != -1 || PyErr_Occurred() == NULL;
}

/* Take one put, or leave it without any effect. */
static enum step take_put(struct taking *taking, const uint8_t *at, const uint8_t *end, struct put *put) {
    bool read = taking->syncs ? read_sync(at, end, taking->max_body, put) : read_put(at, end, taking->max_body, put);
    if (!read)
        return NOT_ORDINARY;
    uint32_t checksum = taking->state->crc32(put->body.start, put->body.length) & CHECKSUM_MASK;
    if (put->has_checksum ? put->checksum != checksum : taking->checked_only)
        return NOT_ORDINARY;
    enum step step = enter_store(taking, put);
    if (step != TAKEN)
        return step;
    if (!add_record(taking, put, checksum))
        return FAILED;
    if (taking->syncs || (taking->next_id & SEQUENCE_MASK) != 0)
        return TAKEN;
    return carry_id(taking) ? TAKEN : FAILED;
}

/* An attribute; false if there is none. */
static bool get(PyObject *object, PyObject *name, PyObject **value) {
    *value = PyObject_GetAttr(object, name);
    return *value != NULL;
}

/* Read the attributes that stay the same during a call. */
static bool begin_taking(struct taking *taking) {
    struct scan_state *state = taking->state;
    int64_t max_body;
    PyObject *checked_only;
    if (!get(taking->routes, taking->syncs ? state->syncs : state->puts, &taking->puts) ||
        !get(taking->routes, state->refuse, &taking->refuse) || !get(taking->group, state->replies, &taking->replies) ||
        !get(taking->group, state->runs, &taking->runs) || !get_number(taking->routes, state->max_body, &max_body) ||
        (!taking->syncs && !get_number(taking->ids, state->next_id, &taking->next_id)) ||
        !get(taking->routes, state->checked_only, &checked_only))
        return false;
    taking->max_body = (size_t)max_body;
    taking->checked_only = checked_only == Py_True;
    Py_DECREF(checked_only);
    return true;
}

/* Write back the changes of the last puts, also after an error. */
static bool end_taking(struct taking *taking, bool begun) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    bool told = leave_store(taking);
    if (begun && !taking->syncs)
        told = set_number(taking->ids, taking->state->next_id, taking->next_id) && told;
    if (type != NULL) /* the first error counts */
        PyErr_Restore(type, value, traceback);
    Py_CLEAR(taking->puts);
    Py_CLEAR(taking->refuse);
    Py_CLEAR(taking->replies);
    Py_CLEAR(taking->runs);
    return told;
}

/* Take puts from the front of [at, end); returns the position after them, NULL after an error. */
static const uint8_t *take_all(struct taking *taking, const uint8_t *at, const uint8_t *end) {
    struct put put;
    bool begun = begin_taking(taking);
    enum step step = begun ? TAKEN : FAILED;
    while (step == TAKEN && at < end) {
        step = take_put(taking, at, end, &put);
        if (step == TAKEN)
            at = put.end;
    }
    return end_taking(taking, begun) && step != FAILED ? at : NULL;
}

PyObject *scan(struct scan_state *state, PyObject *arguments, bool syncs) {
    struct taking taking = {.state = state, .syncs = syncs};
    Py_buffer buffer;
    Py_ssize_t start, end;
    const char *format = syncs ? "y*OnnOOO:take_syncs" : "y*OnnOOO:take_puts";
    if (!PyArg_ParseTuple(arguments, format, &buffer, &taking.source, &start, &end, &taking.routes, &taking.ids,
                          &taking.group))
        return NULL;
    PyObject *result = NULL;
    taking.data = buffer.buf;
    if (start < 0 || start > end || end > buffer.len) {
        PyErr_SetString(PyExc_ValueError, "start and end lie outside of the data");
    } else {
        const uint8_t *past = take_all(&taking, taking.data + start, taking.data + end);
        result = past == NULL ? NULL : PyLong_FromSsize_t(past - taking.data);
    }
    PyBuffer_Release(&buffer);
    return result;
}

/* Names of attributes, made once. */
static bool intern_names(struct scan_state *state) {
    const struct {
        PyObject **place;
        const char *name;
    } names[] = {
        {&state->batch, "batch"},
        {&state->open_batch, "open_batch"},
        {&state->pieces, "pieces"},
        {&state->puts, "puts"},
        {&state->next_offset, "next_offset"},
        {&state->refuse, "refuse"},
        {&state->max_body, "max_body"},
        {&state->next_id, "next_id"},
        {&state->carry, "carry"},
        {&state->syncs, "syncs"},
        {&state->checked_only, "checked_only"},
        {&state->replies, "replies"},
        {&state->runs, "runs"},
        {&state->count, "count"},
    };
    for (size_t index = 0; index < sizeof names / sizeof *names; index++) {
        *names[index].place = PyUnicode_InternFromString(names[index].name);
        if (*names[index].place == NULL)
            return false;
    }
    return true;
}

/* All references of the state. */
#define FOR_EACH(DO)                                                                                                   \
    DO(state->store_error);                                                                                            \
    DO(state->batch);                                                                                                  \
    DO(state->open_batch);                                                                                             \
    DO(state->count);                                                                                                  \
    DO(state->pieces);                                                                                                 \
    DO(state->next_offset);                                                                                            \
    DO(state->puts);                                                                                                   \
    DO(state->syncs);                                                                                                  \
    DO(state->checked_only);                                                                                           \
    DO(state->replies);                                                                                                \
    DO(state->runs);                                                                                                   \
    DO(state->refuse);                                                                                                 \
    DO(state->max_body);                                                                                               \
    DO(state->next_id);                                                                                                \
    DO(state->carry)

bool make_scan_state(struct scan_state *state) {
    state->crc32 = checksum_ways()->crc32;
    PyObject *errors = PyImport_ImportModule("metamorphosis.errors");
    if (errors == NULL)
        return false;
    state->store_error = PyObject_GetAttrString(errors, "StoreError");
    Py_DECREF(errors);
    return state->store_error != NULL && intern_names(state);
}

int visit_scan_state(struct scan_state *state, visitproc visit, void *arg) {
    FOR_EACH(Py_VISIT);
    return 0;
}

void clear_scan_state(struct scan_state *state) { FOR_EACH(Py_CLEAR); }
