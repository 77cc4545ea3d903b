/* Frames and replies of the client; see client/network/replies.py and client/producer/puts.py. */
#ifndef METAMORPHOSIS_SENDS_H
#define METAMORPHOSIS_SENDS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Add the functions to the module; -1 with an error set. */
int sends_add(PyObject *module);

#endif
