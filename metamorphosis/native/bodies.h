/* The body of a reply while it arrives, as a Python type; for module.c. */
#ifndef METAMORPHOSIS_BODIES_H
#define METAMORPHOSIS_BODIES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Add the type Body to the module; -1: an error is set. */
int bodies_add(PyObject *module);

#endif
