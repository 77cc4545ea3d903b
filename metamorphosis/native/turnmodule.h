/* What Python sees of the turn; for module.c. */
#ifndef METAMORPHOSIS_TURNMODULE_H
#define METAMORPHOSIS_TURNMODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Add the type `Lanes` where there is what it needs; -1: an error is set. */
int turn_add(PyObject *module);

#endif
