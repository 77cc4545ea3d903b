/* The stores and files of the requests of a round; each is looked up once a round. Does not use Python. */
#ifndef METAMORPHOSIS_ROUTES_H
#define METAMORPHOSIS_ROUTES_H

#include "turn.h"

/* Forget the stores and files of the last round. */
void clear_routes(struct turn *turn);

/*
 * The index in `appenders` for puts to a partition, with `syncs` for records of a pair's master; NONE: they are not
 * ordinary now.
 */
uint32_t find_appender(struct turn *turn, struct span topic, struct span partition, bool syncs);

/* The index in `readers` for a get at `offset`; NONE: the get is not ordinary now. */
uint32_t find_reader(struct turn *turn, struct span topic, struct span partition, int64_t offset);

#endif
