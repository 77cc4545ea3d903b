/* The stores and files that the requests of a round name: each is asked for once. Knows nothing of Python. */
#ifndef METAMORPHOSIS_ROUTES_H
#define METAMORPHOSIS_ROUTES_H

#include "turn.h"

/* Forget those of the last round. */
void clear_routes(struct turn *turn);

/*
 * Where puts to a partition go, with `syncs` the records of a pair's master, as a number in `appenders`; NONE: they are
 * not ordinary now.
 */
uint32_t find_appender(struct turn *turn, struct span topic, struct span partition, bool syncs);

/* Where a get reads that begins at `offset`, as a number in `readers`; NONE: it is not ordinary. */
uint32_t find_reader(struct turn *turn, struct span topic, struct span partition, int64_t offset);

#endif
