/* Converts the results of a round that are left to Python into Python objects; for turnmodule.c. */
#ifndef METAMORPHOSIS_HANDBACK_H
#define METAMORPHOSIS_HANDBACK_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "turn.h"

/* The first item of each tuple. */
enum handed { HANDED_EVENT, HANDED_BYTES, HANDED_UNSENT, HANDED_REFUSED };

/*
 * Append the items that the round leaves: refused and unsent replies, bytes that were not taken, sockets that Python
 * serves, in the order in which they must be served. A connection for which there is no memory is shut down.
 *
 * `keep` makes a reply from (head, segment, position, length). The replies of an appender wait for its `outcome`; None:
 * the records are stored.
 */
void hand_back(struct turn *turn, PyObject *keep, PyObject *list);

#endif
