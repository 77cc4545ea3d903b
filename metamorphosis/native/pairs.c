/*
 * Frames of records, and answers that accept them: the loops of replication/pairmaster/frames.py.
 * Uses Python, because arguments and results are Python's lists.
 */
#include "pairs.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "codec.h"

#define NUMBERS 5             /* of the line of a frame: length, flag, id, checksum, opaque */
#define MAX_DIGITS 18         /* of a number of an answer that always fits an int64 */

/* Frames */

static uint64_t big_endian(const uint8_t *from, size_t bytes) {
    uint64_t value = 0;
    for (size_t index = 0; index < bytes; index++)
        value = value << 8 | from[index];
    return value;
}

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
    if (header->length == RECORD_HEADER_BYTES && big_endian(header->start, 4) == body->length)
        return true;
    PyErr_Format(PyExc_ValueError, "the pieces at %zd are no record", index);
    return false;
}

/* The numbers of the line of a frame, in their order. */
static void numbers_of(int64_t numbers[NUMBERS], struct span header, struct span body, int64_t opaque) {
    numbers[0] = (int64_t)body.length;
    numbers[1] = (int32_t)big_endian(header.start + 16, 4);
    numbers[2] = (int64_t)big_endian(header.start + 8, 8);
    numbers[3] = (int64_t)big_endian(header.start + 4, 4);
    numbers[4] = opaque;
}

static size_t decimal_length(int64_t number) {
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    size_t length = number < 0 ? 2 : 1;
    for (; rest >= 10; rest /= 10)
        length++;
    return length;
}

static int64_t next_opaque(int64_t opaque, int64_t opaques) { return opaque + 1 == opaques ? 0 : opaque + 1; }

static size_t frame_length(size_t head, struct span header, struct span body, int64_t opaque) {
    int64_t numbers[NUMBERS];
    numbers_of(numbers, header, body, opaque);
    size_t length = head + NUMBERS - 1 + 2 + body.length;
    for (size_t each = 0; each < NUMBERS; each++)
        length += decimal_length(numbers[each]);
    return length;
}

/* The bytes of all frames; appends the sizes of the records to a list. -1 with an error set. */
static Py_ssize_t measure(PyObject *pieces, size_t head, int64_t opaque, int64_t opaques, PyObject *sizes) {
    Py_ssize_t count = PyList_Size(pieces);
    size_t total = 0;
    for (Py_ssize_t index = 0; index + 1 < count; index += 2) {
        struct span header, body;
        if (!record_at(pieces, index, &header, &body))
            return -1;
        PyObject *size = PyLong_FromSize_t(RECORD_HEADER_BYTES + body.length);
        int result = size == NULL ? -1 : PyList_Append(sizes, size);
        Py_XDECREF(size);
        if (result < 0)
            return -1;
        total += frame_length(head, header, body, opaque);
        opaque = next_opaque(opaque, opaques);
    }
    return (Py_ssize_t)total;
}

static uint8_t *write_frame(uint8_t *to, struct span head, struct span header, struct span body, int64_t opaque) {
    int64_t numbers[NUMBERS];
    numbers_of(numbers, header, body, opaque);
    memcpy(to, head.start, head.length);
    to += head.length;
    for (size_t each = 0; each < NUMBERS; each++) {
        to = write_number(to, numbers[each]);
        *to++ = each + 1 < NUMBERS ? ' ' : '\r';
    }
    *to++ = '\n';
    memcpy(to, body.start, body.length);
    return to + body.length;
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

/* A run: records that follow each other in one piece of memory. */

/* The record that begins at `at` of a run; false, without an error set, if the run does not have it whole. */
static bool record_in(struct span run, size_t at, struct span *header, struct span *body) {
    size_t left = run.length - at;
    if (left < RECORD_HEADER_BYTES)
        return false;
    *header = (struct span){run.start + at, RECORD_HEADER_BYTES};
    *body = (struct span){header->start + RECORD_HEADER_BYTES, (size_t)big_endian(header->start, 4)};
    return body->length <= left - RECORD_HEADER_BYTES;
}

/* The bytes of all frames of a run; 0: it does not consist of `count` records. */
static size_t measure_run(struct span run, size_t count, size_t head, int64_t opaque, int64_t opaques) {
    struct span header, body;
    size_t at = 0, total = 0;
    for (; count > 0 && record_in(run, at, &header, &body); count--) {
        total += frame_length(head, header, body, opaque);
        opaque = next_opaque(opaque, opaques);
        at += RECORD_HEADER_BYTES + body.length;
    }
    return count == 0 && at == run.length ? total : 0;
}

const char run_frames_doc[] = "run_frames(head, run, count, opaque, opaques) -> bytes\n--\n\n"
                              "The frames of the records of a run; see frames.frames_of_run.";

PyObject *run_frames(PyObject *module, PyObject *arguments) {
    Py_buffer heads, runs;
    Py_ssize_t count;
    long long opaque, opaques;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*y*nLL:run_frames", &heads, &runs, &count, &opaque, &opaques))
        return NULL;
    struct span head = {heads.buf, (size_t)heads.len}, run = {runs.buf, (size_t)runs.len}, header, body;
    size_t total = count > 0 ? measure_run(run, (size_t)count, head.length, opaque, opaques) : 0;
    PyObject *frames = NULL;
    if (total == 0)
        PyErr_Format(PyExc_ValueError, "the run does not consist of %zd records", count);
    else
        frames = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)total);
    uint8_t *to = frames == NULL ? NULL : (uint8_t *)PyBytes_AsString(frames);
    for (size_t at = 0; to != NULL && record_in(run, at, &header, &body);) {
        to = write_frame(to, head, header, body, opaque);
        opaque = next_opaque(opaque, opaques);
        at += RECORD_HEADER_BYTES + body.length;
    }
    PyBuffer_Release(&heads);
    PyBuffer_Release(&runs);
    return frames;
}

/* Answers */

enum reading { WHOLE, PARTIAL, OTHER };

/* Step over the expected text. */
static enum reading expect(const uint8_t **at, const uint8_t *end, const char *text) {
    for (; *text != '\0'; text++, (*at)++) {
        if (*at == end)
            return PARTIAL;
        if (**at != (uint8_t)*text)
            return OTHER;
    }
    return WHOLE;
}

/* Read a decimal number and step over it; PARTIAL if the bytes end with it. */
static enum reading number_at(const uint8_t **at, const uint8_t *end, int64_t *number) {
    bool negative = *at < end && **at == '-';
    int64_t value = 0;
    size_t digits = 0;
    *at += negative;
    for (; *at < end && **at >= '0' && **at <= '9'; (*at)++, digits++) {
        if (digits == MAX_DIGITS + 1)
            return OTHER;
        if (digits < MAX_DIGITS)
            value = value * 10 + (**at - '0');
        else if (value > (INT64_MAX - 9) / 10)
            return OTHER;
        else
            value = value * 10 + (**at - '0');
    }
    *number = negative ? -value : value;
    if (*at == end)
        return PARTIAL;
    return digits > 0 ? WHOLE : OTHER;
}

/* Read the body `<id> <partition> <offset>`, which must end at `end`. */
static bool body_at(const uint8_t *at, const uint8_t *end, int64_t *offset) {
    int64_t ignored;
    return number_at(&at, end, &ignored) == WHOLE && expect(&at, end, " ") == WHOLE &&
           number_at(&at, end, &ignored) == WHOLE && expect(&at, end, " ") == WHOLE && at < end && *at != '-' &&
           number_at(&at, end, offset) == PARTIAL && at == end;
}

/* Read one answer that accepts a record, and step over it. */
static enum reading answer_at(const uint8_t **at, const uint8_t *end, int64_t *opaque, int64_t *offset) {
    int64_t length;
    enum reading read = expect(at, end, "result 200 ");
    if (read == WHOLE)
        read = number_at(at, end, &length);
    if (read == WHOLE)
        read = expect(at, end, " ");
    if (read == WHOLE)
        read = number_at(at, end, opaque);
    if (read == WHOLE)
        read = expect(at, end, "\r\n");
    if (read != WHOLE)
        return read;
    if (length < 5 || length > 64 || *opaque < 0)
        return OTHER;
    if (length > end - *at)
        return PARTIAL;
    if (!body_at(*at, *at + length, offset))
        return OTHER;
    *at += length;
    return WHOLE;
}

static bool append_number(PyObject *list, int64_t number) {
    PyObject *value = PyLong_FromLongLong(number);
    int result = value == NULL ? -1 : PyList_Append(list, value);
    Py_XDECREF(value);
    return result == 0;
}

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

const char run_accepted_doc[] = "run_accepted(data, position, run, at, opaque, opaques, offset) -> (int, int, int)\n--\n\n"
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
        struct span run = {runs.buf, (size_t)runs.len}, header, body;
        size_t at = (size_t)first;
        Py_ssize_t count = 0;
        for (; past < end && record_in(run, at, &header, &body); count++) {
            const uint8_t *read = past;
            int64_t answered, stored;
            if (answer_at(&read, end, &answered, &stored) != WHOLE || answered != opaque || stored != offset)
                break;
            past = read;
            opaque = next_opaque(opaque, opaques);
            offset += RECORD_HEADER_BYTES + (int64_t)body.length;
            at += RECORD_HEADER_BYTES + body.length;
        }
        result = Py_BuildValue("(nnn)", count, (Py_ssize_t)at, (Py_ssize_t)(past - (const uint8_t *)data.buf));
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&runs);
    return result;
}
