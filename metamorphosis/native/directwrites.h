/*
 * The usual case of `Appender.begin` and `Appender.took` (store/appender.py) without Python: the store is open, can be
 * written at once, and needs nothing but its numbers afterwards. For turncalls.c.
 */
#ifndef METAMORPHOSIS_DIRECTWRITES_H
#define METAMORPHOSIS_DIRECTWRITES_H

#include "lanesobject.h"

/*
 * Fill in the place of the next records of `store`, any object of Python. False: it is not a store in the usual state,
 * and Python has to be asked.
 */
bool find_place(const Lanes *lanes, PyObject *store, struct appender *appender);

/*
 * Room for the records of an appender behind those that its store keeps until they are flushed, inside a chunk of which
 * `memory` gets a reference. NULL: they need memory of their own.
 */
uint8_t *find_room(const Lanes *lanes, const struct appender *appender, PyObject **memory);

/*
 * Account for records that were written at the place of an appender. False: nothing has changed, and Python has to do
 * it, because a flush or a roll is due, or a reader waits.
 */
bool account(Lanes *lanes, const struct appender *appender);

/* As `Appender.withdraw`: Python could not account for records that were written, not even begin to. */
void withdraw(const Lanes *lanes, PyObject *appender);

#endif
