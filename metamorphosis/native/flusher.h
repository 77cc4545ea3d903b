/* What Python sees of flush.c; for module.c. */
#ifndef METAMORPHOSIS_FLUSHER_H
#define METAMORPHOSIS_FLUSHER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Add the type Flusher to the module, where the system has what it needs; -1 with an error. */
int flusher_add(PyObject *module);

#endif
