/* Reads the ordinary requests of one connection in a turn. Does not use Python. */
#ifndef METAMORPHOSIS_REQUESTS_H
#define METAMORPHOSIS_REQUESTS_H

#include "turn.h"

/* Take requests from the front of [at, end); returns the first one that is incomplete, or not ordinary now. */
const uint8_t *take_requests(struct turn *turn, struct answered *answered, const uint8_t *at, const uint8_t *end);

#endif
