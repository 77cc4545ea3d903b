/* The Python type of the turn; for module.c. */
#ifndef METAMORPHOSIS_TURNMODULE_H
#define METAMORPHOSIS_TURNMODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Add the type `Lanes` where the system supports it; -1: an error is set. */
int turn_add(PyObject *module);

#endif
