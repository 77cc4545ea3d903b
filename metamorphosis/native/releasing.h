/* The replies that waited for a batch, when it is decided; for turnmodule.c and flights.c. */
#ifndef METAMORPHOSIS_RELEASING_H
#define METAMORPHOSIS_RELEASING_H

#include "lanesobject.h"

/* Send the replies that waited for a batch that is stored. False: sockets did not take all of them, see `hand_lanes`.
 */
bool send_all(struct turn *turn, const struct batch *batch);

/* Append the items of the connections that Python has to serve: they have unsent replies, or some to be refused. */
void hand_lanes(struct turn *turn, const struct batch *batch, bool failed, PyObject *list);

/* Let the batch of these replies call the set of sockets when it is decided; false: there is no memory. */
bool await(Lanes *lanes, PyObject *outcome);

/* No reply waits for the batch any more. */
void forget_batch(struct turn *turn, struct batch *batch);

#endif
