/* The Python type of flush.c; for module.c. */
#ifndef METAMORPHOSIS_FLUSHER_H
#define METAMORPHOSIS_FLUSHER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Add the type Flusher to the module where the system supports it; -1: an error is set. */
int flusher_add(PyObject *module);

#endif
