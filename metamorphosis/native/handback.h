/* What a round leaves to Python, as values of its own; for turnmodule.c. */
#ifndef METAMORPHOSIS_HANDBACK_H
#define METAMORPHOSIS_HANDBACK_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "turn.h"

/* The first item of each tuple. */
enum handed { HANDED_EVENT, HANDED_BYTES, HANDED_UNSENT, HANDED_REFUSED };

/*
 * Append what the round leaves: sockets that are served in Python, replies that did not leave, bytes that were not
 * taken, in the order in which they have to be served. A connection for which there is no memory is shut down.
 *
 * `keep` makes a reply of (head, segment, position, length). The `outcome` of an appender is what its replies wait for,
 * None: they are stored.
 */
void hand_back(struct turn *turn, PyObject *keep, PyObject *list);

#endif
