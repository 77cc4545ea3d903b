/* The Python object of a turn, for turnmodule.c and turncalls.c. */
#ifndef METAMORPHOSIS_LANESOBJECT_H
#define METAMORPHOSIS_LANESOBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "turn.h"

/* `turn` is allocated separately: it is too large for an object of the limited API. */
typedef struct {
    PyObject_HEAD
    struct turn *turn;
    PyObject *begin, *took, *failed, *collected, *watch, *find, *served, *keep; /* methods of the stores */
    PyObject *start_chunk, *carry, *ids;
    bool busy;
} Lanes;

#endif
