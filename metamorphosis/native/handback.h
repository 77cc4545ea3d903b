/* Converts the results of a round that are left to Python into Python objects; for turnmodule.c. */
#ifndef METAMORPHOSIS_HANDBACK_H
#define METAMORPHOSIS_HANDBACK_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "turn.h"

/* The first item of each tuple. */
enum handed { HANDED_EVENT, HANDED_BYTES, HANDED_UNSENT, HANDED_WAITING };

/*
 * Put the replies that wait into the queues of their connections, and append the items that the round leaves: replies
 * that Python has to keep or to refuse, unsent replies, bytes that were not taken, sockets that Python serves, in the
 * order in which they must be served. A connection for which there is no memory is shut down.
 *
 * `keep` makes a reply from (head, segment, position, length). The replies of an appender wait for its `outcome`; None:
 * the records are stored.
 */
void hand_back(struct turn *turn, PyObject *keep, PyObject *list);

/*
 * Take the replies that have not left from the queue of a connection: each as (batch or None, number of its record
 * there, reply). NULL: an error is set, and nothing has changed.
 */
PyObject *take_held(struct turn *turn, struct lane *lane);

/* Append the item of a connection whose queue Python has to take. One for which there is no memory is shut down. */
void hand_held(struct turn *turn, int descriptor, struct lane *lane, PyObject *list);

#endif
