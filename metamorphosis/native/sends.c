/*
 * The loops of a sending client: the frame of a put, the replies of a chunk, the place in the reply to a put. The
 * results are Python objects. Unusual input is left to the code in Python.
 */
#include "sends.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "checksum.h"
#include "codec.h"
#include "taking.h"

#define SHORT_DIGITS 9 /* of a status and a length: always fits an int32 */
#define LONG_DIGITS 19 /* of an id and an offset */
#define LINE_BYTES 100 /* of a frame's numbers, their blanks and the end of the line */

/* The position of the reader in the received bytes. */
struct cursor {
    const uint8_t *at, *end;
};

static bool expect(struct cursor *cursor, const char *text) {
    size_t length = strlen(text);
    if ((size_t)(cursor->end - cursor->at) < length || memcmp(cursor->at, text, length) != 0)
        return false;
    cursor->at += length;
    return true;
}

/* Read up to `most` digits (at most 19); false: none, too many, or too large for an int64. */
static bool read_digits(struct cursor *cursor, size_t most, int64_t *number) {
    uint64_t value = 0;
    size_t digits = 0;
    for (; cursor->at < cursor->end && *cursor->at >= '0' && *cursor->at <= '9'; cursor->at++, digits++) {
        if (digits == most)
            return false;
        value = value * 10 + (uint64_t)(*cursor->at - '0');
    }
    *number = (int64_t)value;
    return digits > 0 && value <= INT64_MAX;
}

/* The same with a sign. */
static bool read_number(struct cursor *cursor, size_t most, int64_t *number) {
    bool negative = expect(cursor, "-");
    if (!read_digits(cursor, most, number))
        return false;
    if (negative)
        *number = -*number;
    return true;
}

/* One reply of a broker. */
struct reply {
    int64_t status, length, opaque;
    const uint8_t *body;
};

/* Read the whole reply at the cursor; false: it is unusual, or not complete. */
static bool read_reply(struct cursor *cursor, int64_t max_body, struct reply *reply) {
    if (expect(cursor, "result ")) {
        if (!read_digits(cursor, SHORT_DIGITS, &reply->status) || !expect(cursor, " "))
            return false;
    } else if (expect(cursor, "value ")) {
        reply->status = 0;
    } else {
        return false;
    }
    if (!read_digits(cursor, SHORT_DIGITS, &reply->length) || !expect(cursor, " ") ||
        !read_number(cursor, LONG_DIGITS, &reply->opaque) || !expect(cursor, "\r\n"))
        return false;
    if (reply->length > max_body || reply->length > cursor->end - cursor->at)
        return false;
    reply->body = cursor->at;
    cursor->at += reply->length;
    return true;
}

/* Append (status, body, opaque). */
static bool append_reply(PyObject *replies, const struct reply *reply) {
    PyObject *status = PyLong_FromLongLong(reply->status);
    PyObject *body = PyBytes_FromStringAndSize((const char *)reply->body, (Py_ssize_t)reply->length);
    PyObject *opaque = PyLong_FromLongLong(reply->opaque);
    PyObject *found = NULL;
    if (status != NULL && body != NULL && opaque != NULL)
        found = PyTuple_Pack(3, status, body, opaque);
    Py_XDECREF(status);
    Py_XDECREF(body);
    Py_XDECREF(opaque);
    return append_new(replies, found);
}

static const char split_replies_doc[] =
    "split_replies(data, max_body, replies) -> int\n--\n\n"
    "Append the usual replies at the front of data; returns their end. See ReplyReader.";

static PyObject *split_replies(PyObject *module, PyObject *arguments) {
    char *data;
    Py_ssize_t length;
    PyObject *given, *replies;
    long long max_body;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "SLO!:split_replies", &given, &max_body, &PyList_Type, &replies) ||
        PyBytes_AsStringAndSize(given, &data, &length) != 0)
        return NULL;
    const uint8_t *start = (const uint8_t *)data, *past = start;
    struct cursor cursor = {start, start + length};
    struct reply reply;
    while (read_reply(&cursor, max_body, &reply)) {
        if (!append_reply(replies, &reply))
            return NULL;
        past = cursor.at;
    }
    return PyLong_FromSsize_t(past - start);
}

static const char put_place_doc[] = "put_place(body) -> tuple[int, int, int] | None\n--\n\n"
                                    "Id, partition and offset in the reply to a put; None: the reply is unusual.";

static PyObject *put_place(PyObject *module, PyObject *body) {
    char *data;
    Py_ssize_t length;
    int64_t id, partition, offset;
    (void)module;
    if (PyBytes_AsStringAndSize(body, &data, &length) != 0)
        return NULL;
    struct cursor cursor = {(const uint8_t *)data, (const uint8_t *)data + length};
    if (read_number(&cursor, LONG_DIGITS, &id) && expect(&cursor, " ") &&
        read_number(&cursor, SHORT_DIGITS, &partition) && expect(&cursor, " ") &&
        read_number(&cursor, LONG_DIGITS, &offset) && cursor.at == cursor.end)
        return Py_BuildValue("(LLL)", (long long)id, (long long)partition, (long long)offset);
    return Py_NewRef(Py_None);
}

/* The line of a put behind its topic; returns its length. */
static size_t write_line(uint8_t line[LINE_BYTES], const int64_t *numbers, size_t count) {
    uint8_t *to = line;
    for (size_t index = 0; index < count; index++) {
        *to++ = ' ';
        to = write_number(to, numbers[index]);
    }
    *to++ = '\r';
    *to++ = '\n';
    return (size_t)(to - line);
}

static const char put_frame_doc[] = "put_frame(topic, partition, body, flag, opaque) -> bytes\n--\n\n"
                                    "The frame of a put with its checksum; see puts.put_frame.";

static PyObject *put_frame(PyObject *module, PyObject *arguments) {
    static const char verb[] = "put ";
    PyObject *topic, *body;
    char *name, *data;
    Py_ssize_t name_length, length;
    int partition, flag, opaque;
    uint8_t line[LINE_BYTES];
    (void)module;
    if (!PyArg_ParseTuple(arguments, "SiSii:put_frame", &topic, &partition, &body, &flag, &opaque) ||
        PyBytes_AsStringAndSize(topic, &name, &name_length) != 0 || PyBytes_AsStringAndSize(body, &data, &length) != 0)
        return NULL;
    uint32_t checksum = checksum_ways()->crc32((const uint8_t *)data, (size_t)length) & CHECKSUM_MASK;
    int64_t numbers[] = {partition, length, flag, checksum, opaque};
    size_t line_length = write_line(line, numbers, sizeof numbers / sizeof *numbers);
    size_t head = sizeof verb - 1 + (size_t)name_length + line_length;
    PyObject *frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)head + length);
    if (frame == NULL)
        return NULL;
    char *to = PyBytes_AsString(frame);
    memcpy(to, verb, sizeof verb - 1);
    memcpy(to + sizeof verb - 1, name, (size_t)name_length);
    memcpy(to + head - line_length, line, line_length);
    memcpy(to + head, data, (size_t)length);
    return frame;
}

static PyMethodDef methods[] = {
    {"split_replies", split_replies, METH_VARARGS, split_replies_doc},
    {"put_place", put_place, METH_O, put_place_doc},
    {"put_frame", put_frame, METH_VARARGS, put_frame_doc},
    {NULL, NULL, 0, NULL},
};

int sends_add(PyObject *module) { return PyModule_AddFunctions(module, methods); }
