/* What a turn asks of the stores in Python, and tells them; for turnmodule.c. */
#ifndef METAMORPHOSIS_TURNCALLS_H
#define METAMORPHOSIS_TURNCALLS_H

#include "lanesobject.h"

/* The functions that the turn calls while it receives. */
struct calls calls_of(Lanes *lanes);

/* Give back unused ids before other code takes one. */
void end_ids(Lanes *lanes);

/* Make the data of each store, in memory that Python keeps until it is flushed. */
void make_data(Lanes *lanes);

/* Report to every store the records that were written, or pass them on to be written later. */
void tell_stores(Lanes *lanes);

/* Release the stores. */
void leave_stores(Lanes *lanes);

/* Release the files. */
void leave_files(Lanes *lanes);

#endif
