/*
 * Puts of one transaction that follow each other: see take_run in broker/hotpath/transactional.py, which is its
 * reference.
 */
#include "run.h"

#include <string.h>

#include "checksum.h"
#include "codec.h"
#include "taking.h"

struct run {
    struct span key;
    PyObject *places, *messages, *records, *replies; /* borrowed */
    Py_ssize_t max_body, room, overhead;
    long long next_id;
};

/* The partition of the message, borrowed; NULL without an error if it is not known. */
static PyObject *find_place(const struct run *run, const struct put *put) {
    PyObject *key = Py_BuildValue("(NN)", bytes_of(put->topic), bytes_of(put->partition));
    PyObject *place = key == NULL ? NULL : PyDict_GetItemWithError(run->places, key);
    Py_XDECREF(key);
    return place;
}

static PyObject *record_of(const struct run *run, struct span frame) {
    PyObject *record = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)append_bytes(run->next_id, frame.length));
    if (record != NULL)
        write_append((uint8_t *)PyBytes_AsString(record), run->next_id, frame);
    return record;
}

/* Append the results of a put to the three lists, to all or the call fails; releases `record`. */
static bool add(struct run *run, const struct put *put, uint32_t checksum, PyObject *place, PyObject *record) {
    uint8_t header[RECORD_HEADER_BYTES], reply[PUT_REPLY_BYTES];
    write_header(header, (uint32_t)put->body.length, checksum, run->next_id, put->flag);
    size_t length = write_put_reply(reply, put, run->next_id, -1);
    PyObject *message = Py_BuildValue("(ONO)", place, bytes_of((struct span){header, sizeof header}), record);
    PyObject *text = bytes_of((struct span){reply, length});
    bool added = message != NULL && text != NULL && PyList_Append(run->messages, message) == 0 &&
                 PyList_Append(run->records, record) == 0 && PyList_Append(run->replies, text) == 0;
    Py_XDECREF(message);
    Py_XDECREF(text);
    Py_DECREF(record);
    return added;
}

/* Take the put at `at`, or leave it without any effect. */
static enum step take_one(struct run *run, const uint8_t *at, const uint8_t *end, struct put *put) {
    if (!read_transaction_put(at, end, (size_t)run->max_body, run->key, put))
        return NOT_ORDINARY;
    uint32_t checksum = checksum_ways()->crc32(put->body.start, put->body.length) & CHECKSUM_MASK;
    if (put->has_checksum && put->checksum != checksum)
        return NOT_ORDINARY;
    struct span frame = {at, (size_t)(put->end - at)};
    Py_ssize_t room = run->room - (Py_ssize_t)append_bytes(run->next_id, frame.length) - run->overhead;
    if (room < 0)
        return NOT_ORDINARY;
    PyObject *place = find_place(run, put);
    if (place == NULL)
        return PyErr_Occurred() != NULL ? FAILED : NOT_ORDINARY;
    PyObject *record = record_of(run, frame);
    if (record == NULL || !add(run, put, checksum, place, record))
        return FAILED;
    run->room = room;
    run->next_id++;
    return TAKEN;
}

/* Take puts from the front of [at, end) until ids carry; returns the position after them, NULL after an error. */
static const uint8_t *take_all(struct run *run, const uint8_t *at, const uint8_t *end) {
    struct put put;
    while (at < end) {
        enum step step = take_one(run, at, end, &put);
        if (step == FAILED)
            return NULL;
        if (step == NOT_ORDINARY)
            break;
        at = put.end;
        if ((run->next_id & SEQUENCE_MASK) == 0)
            break;
    }
    return at;
}

const char take_run_doc[] =
    "take_run(data, start, end, key, places, max_body, room, overhead, next_id, messages, records, replies) -> int\n"
    "--\n\nTake puts of one transaction from the front of data[start:end]; see broker/hotpath/transactional.py.";

PyObject *take_run(PyObject *module, PyObject *arguments) {
    struct run run;
    Py_buffer buffer, key;
    Py_ssize_t start, end;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*nny*O!nnnLO!O!O!:take_run", &buffer, &start, &end, &key, &PyDict_Type,
                          &run.places, &run.max_body, &run.room, &run.overhead, &run.next_id, &PyList_Type,
                          &run.messages, &PyList_Type, &run.records, &PyList_Type, &run.replies))
        return NULL;
    run.key = (struct span){key.buf, (size_t)key.len};
    PyObject *result = NULL;
    if (start < 0 || start > end || end > buffer.len || run.max_body < 0) {
        PyErr_SetString(PyExc_ValueError, "start and end lie outside of the data, or a length is negative");
    } else {
        const uint8_t *data = buffer.buf;
        const uint8_t *past = take_all(&run, data + start, data + end);
        result = past == NULL ? NULL : PyLong_FromSsize_t(past - data);
    }
    PyBuffer_Release(&key);
    PyBuffer_Release(&buffer);
    return result;
}
