/* What the files that take requests into Python's objects share. */
#ifndef METAMORPHOSIS_TAKING_H
#define METAMORPHOSIS_TAKING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "codec.h"

/* Whether a request was taken. FAILED: with an error set in Python. */
enum step { TAKEN, NOT_ORDINARY, FAILED };

/* A copy of the bytes; a new reference, NULL with an error set. */
static inline PyObject *bytes_of(struct span span) {
    return PyBytes_FromStringAndSize((const char *)span.start, (Py_ssize_t)span.length);
}

#endif
