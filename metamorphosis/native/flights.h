/*
 * The flights of a pair's master as Python has them: the usual case of replication/pairmaster/syncs.py and flights.py
 * without Python; for landing.c and turncalls.c.
 */
#ifndef METAMORPHOSIS_FLIGHTS_H
#define METAMORPHOSIS_FLIGHTS_H

#include "lanesobject.h"

/* The objects of a partition. */
struct pair {
    struct pair_appender_fields *appender;
    struct paired_fields *log;
    struct syncs_fields *syncs;
    struct under_way_fields *under_way;
};

/* False: this is not the appender of a pair's partition. */
bool find_pair(const Lanes *lanes, PyObject *appender, struct pair *pair);

/* As `PairAppender.begin`; false: Python has to be asked. */
bool find_pair_place(const Lanes *lanes, PyObject *log, struct appender *appender);

/* As `Syncs.begin_flight`, for a new batch with the records of an appender. False: an error is set, and there is none.
 */
bool begin_flight(Lanes *lanes, const struct pair *pair, const struct appender *appender, PyObject **batch,
                  PyObject **flight);

/* Whether the records of a flight, which the slave has, are the next ones of its store, and their replies are right. */
bool is_usual(const Lanes *lanes, const struct pair *pair, PyObject *flight);

/*
 * As `PairAppender.landed`, for a usual flight whose records were written at the place of an appender, completely.
 * False: an error is set.
 */
bool flight_landed(Lanes *lanes, const struct pair *pair, PyObject *flight, const struct appender *place);

#endif
