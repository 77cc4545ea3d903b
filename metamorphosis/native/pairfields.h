/*
 * The fields of a pair's objects that the turn reads and changes; replication/pairmaster/fields.py says what they are
 * for. The objects of Python come first, see fieldtypes.h.
 */
#ifndef METAMORPHOSIS_PAIRFIELDS_H
#define METAMORPHOSIS_PAIRFIELDS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

enum { FLIGHT_SENDER, FLIGHT_BATCH, FLIGHT_EARLY, FLIGHT_RUN, FLIGHT_SIZES, FLIGHT_OBJECTS };

/* Of a Flight. */
struct flight_fields {
    PyObject_HEAD
    PyObject *objects[FLIGHT_OBJECTS];
    long long number, count, done, at, offset;
    double deadline;
    char is_late;
};

enum { PAIRED_STANDING, PAIRED_APPENDER, PAIRED_FLIGHTS, PAIRED_HEAD, PAIRED_OBJECTS };

/* Of a PairedLog. */
struct paired_fields {
    PyObject_HEAD
    PyObject *objects[PAIRED_OBJECTS];
    long long next_offset;
};

enum {
    PAIR_LOG,
    PAIR_STORE,
    PAIR_SYNCS,
    PAIR_JOINED,
    PAIR_STORED,
    PAIR_MAKE_BATCH,
    PAIR_FLIGHT_TYPE,
    PAIR_APPENDER_OBJECTS
};

/* Of a PairAppender. */
struct pair_appender_fields {
    PyObject_HEAD
    PyObject *objects[PAIR_APPENDER_OBJECTS];
    long long opaques;
};

enum { SYNCS_FLIGHTS, SYNCS_NOW, SYNCS_OBJECTS };

/* Of a Syncs. */
struct syncs_fields {
    PyObject_HEAD
    PyObject *objects[SYNCS_OBJECTS];
    long long waiting, limit, failures, number, record_bytes;
    double timeout, due;
    char is_connected, is_planned, is_heard;
};

enum { UNDER_WAY_FLIGHTS, UNDER_WAY_OBJECTS };

/* Of an UnderWay. */
struct under_way_fields {
    PyObject_HEAD
    PyObject *objects[UNDER_WAY_OBJECTS];
    long long first, many;
};

enum { FLIGHT_FIELDS, PAIRED_FIELDS, PAIR_APPENDER_FIELDS, SYNCS_FIELDS, UNDER_WAY_FIELDS, PAIR_TYPES };

/* Add the types to the module; -1 with an error set. */
int pairfields_add(PyObject *module);

/* New references to the types of a module, in the order above; false with an error set. */
bool get_pair_types(PyObject *module, PyObject *types[PAIR_TYPES]);

#endif
