/* What the files that take requests into Python's objects share. */
#ifndef METAMORPHOSIS_TAKING_H
#define METAMORPHOSIS_TAKING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>

#include "codec.h"

/* Whether a request was taken. FAILED: with an error set in Python. */
enum step { TAKEN, NOT_ORDINARY, FAILED };

/* A copy of the bytes; a new reference, NULL with an error set. */
static inline PyObject *bytes_of(struct span span) {
    return PyBytes_FromStringAndSize((const char *)span.start, (Py_ssize_t)span.length);
}

/* Append a new value to a list, and release it. False: an error is set, also before. */
static inline bool append_new(PyObject *list, PyObject *value) {
    bool appended = value != NULL && PyList_Append(list, value) == 0;
    Py_XDECREF(value);
    return appended;
}

#endif
