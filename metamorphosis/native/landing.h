/* The flights of a pair's master, as Python sees them; for turnmodule.c and turncalls.c. */
#ifndef METAMORPHOSIS_LANDING_H
#define METAMORPHOSIS_LANDING_H

#include "lanesobject.h"

/*
 * Let the records of a store leave with the frames of this turn, as a flight; returns the batch that their replies wait
 * for, a new reference. NULL: an error is set, and the connection to the slave is shut down.
 */
PyObject *launch(Lanes *lanes, const struct appender *appender);

/* Write the records of the flights whose answers have come in this round. */
void land(Lanes *lanes);

/*
 * Send the frames of this turn. What the socket does not take becomes the first item of the list: Python must not send
 * anything else on this connection before it.
 */
void leave_frames(Lanes *lanes, PyObject *list);

/*
 * Send them after a round, if they are many and no others are expected soon. What the socket does not take leaves in
 * front of the frames of the next round, or at the end of the turn.
 */
void leave_many_frames(Lanes *lanes);

/*
 * Wait a moment for the puts that are to leave together with those of this turn, which ends at `ends`; whether more
 * have come. A slave with group commit flushes the first that it gets, and the others wait for that.
 */
bool gathers(Lanes *lanes, PyObject *list, int64_t ends);

/* The lane of this descriptor is no longer the line, if it was. */
void close_line(Lanes *lanes, int descriptor);

/* Release the objects of all flights. */
void drop_flights(struct line *line);

/* For the garbage collector. */
int visit_flights(const struct line *line, visitproc visit, void *arg);

/* Methods of `Lanes`. */
extern const char line_doc[];
extern const char resume_doc[];
extern const char expect_doc[];

PyObject *open_line(PyObject *self, PyObject *argument);
PyObject *resume(PyObject *self, PyObject *argument);
PyObject *expect(PyObject *self, PyObject *argument);

#endif
