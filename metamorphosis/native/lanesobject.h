/* The Python object of a turn, with its life; for turnmodule.c and turncalls.c. */
#ifndef METAMORPHOSIS_LANESOBJECT_H
#define METAMORPHOSIS_LANESOBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "pairfields.h"
#include "storefields.h"
#include "turn.h"

/* `turn` is allocated separately: it is too large for an object of the limited API. */
typedef struct {
    PyObject_HEAD
    struct turn *turn;
    PyObject *begin, *took, *failed, *collected, *find, *served, *keep; /* methods of the stores */
    PyObject *decided; /* called by a batch that replies wait for, with the batch */
    PyObject *partial; /* of functools */
    PyObject *lingering_type;
    PyObject *start_chunk, *carry, *ids;
    PyObject *routes;
    PyObject *puts, *syncs; /* tables of the routes, for a round; NULL: not used yet */
    PyObject *field_types[FIELD_TYPES];
    PyObject *pair_types[PAIR_TYPES];
    PyObject *holding, *opened;  /* states of a store */
    PyObject *unknown_end;       /* the reason why a store was withdrawn */
    long long most, most_in_all; /* unflushed bytes of a store, of all stores */
    double time;                 /* of the stores' clock */
    bool has_time;               /* it is that of this round */
    bool busy;
    bool asked; /* in this turn Python was called for a store, and may have planned its end */
} Lanes;

/* Lanes(epoll_set, stores, ids, max_body, max_held); -1: an error is set. */
int make_lanes_object(PyObject *self, PyObject *arguments, PyObject *keywords);

/* For the garbage collector. */
int visit_lanes_object(PyObject *self, visitproc visit, void *arg);
int clear_lanes_object(PyObject *self);

void free_lanes_object(PyObject *self);

#endif
