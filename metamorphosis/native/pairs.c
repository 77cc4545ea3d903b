/*
 * Frames of records, and answers that accept them: the loops of replication/pairmaster/frames.py.
 * Uses Python, because arguments and results are Python's lists.
 */
#include "pairs.h"

#include <stdbool.h>
#include <stdint.h>

#include "frames.h"
#include "taking.h"

/* Frames */

/* Header and body of a record; false, with an error set, if the pieces are not a record. */
static bool record_at(PyObject *pieces, Py_ssize_t index, struct span *header, struct span *body) {
    char *start;
    Py_ssize_t length;
    PyObject *piece = PyList_GetItem(pieces, index);
    if (piece == NULL || PyBytes_AsStringAndSize(piece, &start, &length) < 0)
        return false;
    *header = (struct span){(const uint8_t *)start, (size_t)length};
    piece = PyList_GetItem(pieces, index + 1);
    if (piece == NULL || PyBytes_AsStringAndSize(piece, &start, &length) < 0)
        return false;
    *body = (struct span){(const uint8_t *)start, (size_t)length};
    if (header->length == RECORD_HEADER_BYTES && big_endian(header->start) == body->length)
        return true;
    PyErr_Format(PyExc_ValueError, "the pieces at %zd are no record", index);
    return false;
}

/* The bytes of all frames; appends the sizes of the records to a list. -1 with an error set. */
static Py_ssize_t measure(PyObject *pieces, size_t head, int64_t opaque, int64_t opaques, PyObject *sizes) {
    Py_ssize_t count = PyList_Size(pieces);
    size_t total = 0;
    for (Py_ssize_t index = 0; index + 1 < count; index += 2) {
        struct span header, body;
        if (!record_at(pieces, index, &header, &body))
            return -1;
        if (!append_new(sizes, PyLong_FromSize_t(RECORD_HEADER_BYTES + body.length)))
            return -1;
        total += frame_length(head, header, body, opaque);
        opaque = next_opaque(opaque, opaques);
    }
    return (Py_ssize_t)total;
}

static PyObject *frames_of(PyObject *pieces, struct span head, int64_t opaque, int64_t opaques, PyObject *sizes) {
    Py_ssize_t total = measure(pieces, head.length, opaque, opaques, sizes);
    PyObject *frames = total < 0 ? NULL : PyBytes_FromStringAndSize(NULL, total);
    if (frames == NULL)
        return NULL;
    uint8_t *to = (uint8_t *)PyBytes_AsString(frames);
    Py_ssize_t count = PyList_Size(pieces);
    for (Py_ssize_t index = 0; index + 1 < count; index += 2) {
        struct span header, body;
        if (!record_at(pieces, index, &header, &body)) {
            Py_DECREF(frames);
            return NULL;
        }
        to = write_frame(to, head, header, body, opaque);
        opaque = next_opaque(opaque, opaques);
    }
    return frames;
}

const char sync_frames_doc[] = "sync_frames(head, pieces, opaque, opaques) -> (bytes, list[int])\n--\n\n"
                               "The frames of records and their sizes in the log; see frames.frames_of.";

PyObject *sync_frames(PyObject *module, PyObject *arguments) {
    Py_buffer head;
    PyObject *pieces;
    long long opaque, opaques;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*O!LL:sync_frames", &head, &PyList_Type, &pieces, &opaque, &opaques))
        return NULL;
    PyObject *sizes = PyList_New(0);
    struct span span = {head.buf, (size_t)head.len};
    PyObject *frames = sizes == NULL ? NULL : frames_of(pieces, span, opaque, opaques, sizes);
    PyObject *result = frames == NULL ? NULL : PyTuple_Pack(2, frames, sizes);
    Py_XDECREF(frames);
    Py_XDECREF(sizes);
    PyBuffer_Release(&head);
    return result;
}

/* A run: see frames.h. */

const char run_frames_doc[] = "run_frames(head, run, count, opaque, opaques) -> bytes\n--\n\n"
                              "The frames of the records of a run; see frames.frames_of_run.";

PyObject *run_frames(PyObject *module, PyObject *arguments) {
    Py_buffer heads, runs;
    Py_ssize_t count;
    long long opaque, opaques;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*y*nLL:run_frames", &heads, &runs, &count, &opaque, &opaques))
        return NULL;
    struct span head = {heads.buf, (size_t)heads.len}, run = {runs.buf, (size_t)runs.len};
    size_t total = count > 0 ? measure_run(run, (size_t)count, head.length, opaque, opaques) : 0;
    PyObject *frames = NULL;
    if (total == 0)
        PyErr_Format(PyExc_ValueError, "the run does not consist of %zd records", count);
    else
        frames = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)total);
    if (frames != NULL)
        write_run((uint8_t *)PyBytes_AsString(frames), head, run, opaque, opaques);
    PyBuffer_Release(&heads);
    PyBuffer_Release(&runs);
    return frames;
}

/* Answers */

static bool append_number(PyObject *list, int64_t number) { return append_new(list, PyLong_FromLongLong(number)); }

const char accepted_doc[] = "accepted(data) -> (list[int], list[int], int, bool)\n--\n\n"
                            "The answers at the front of data that accept a record; see frames.accepted.";

PyObject *accepted(PyObject *module, PyObject *arguments) {
    Py_buffer data;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*:accepted", &data))
        return NULL;
    const uint8_t *start = data.buf, *end = start + data.len, *past = start;
    PyObject *opaques = PyList_New(0), *offsets = PyList_New(0);
    enum reading read = opaques == NULL || offsets == NULL ? OTHER : WHOLE;
    while (read == WHOLE) {
        const uint8_t *at = past;
        int64_t opaque, offset;
        read = answer_at(&at, end, &opaque, &offset);
        if (read != WHOLE)
            break;
        if (!append_number(opaques, opaque) || !append_number(offsets, offset))
            break;
        past = at;
    }
    PyObject *result = NULL;
    if (PyErr_Occurred() == NULL)
        result = Py_BuildValue("(OOnO)", opaques, offsets, past - start, read == PARTIAL ? Py_True : Py_False);
    Py_XDECREF(opaques);
    Py_XDECREF(offsets);
    PyBuffer_Release(&data);
    return result;
}

const char run_accepted_doc[] =
    "run_accepted(data, position, run, at, opaque, opaques, offset) -> (int, int, int)\n--\n\n"
    "The answers that accept the next records of a run; see frames.accepted_of_run.";

PyObject *run_accepted(PyObject *module, PyObject *arguments) {
    Py_buffer data, runs;
    Py_ssize_t position, first;
    long long opaque, opaques, offset;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*ny*nLLL:run_accepted", &data, &position, &runs, &first, &opaque, &opaques,
                          &offset))
        return NULL;
    PyObject *result = NULL;
    if (position < 0 || position > data.len || first < 0 || first > runs.len) {
        PyErr_SetString(PyExc_ValueError, "a position is outside its bytes");
    } else {
        const uint8_t *past = (const uint8_t *)data.buf + position, *end = (const uint8_t *)data.buf + data.len;
        struct expected next = {{runs.buf, (size_t)runs.len}, (size_t)first, opaque, offset};
        enum reading last;
        Py_ssize_t count = (Py_ssize_t)step_over(&next, opaques, &past, end, &last);
        result = Py_BuildValue("(nnn)", count, (Py_ssize_t)next.at, (Py_ssize_t)(past - (const uint8_t *)data.buf));
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&runs);
    return result;
}
