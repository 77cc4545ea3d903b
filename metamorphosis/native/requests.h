/* The ordinary requests of one connection, taken in a turn. Knows nothing of Python. */
#ifndef METAMORPHOSIS_REQUESTS_H
#define METAMORPHOSIS_REQUESTS_H

#include "turn.h"

/* Take requests from the front of [at, end); returns the first that is incomplete, or not ordinary now. */
const uint8_t *take_requests(struct turn *turn, struct answered *answered, const uint8_t *at, const uint8_t *end);

#endif
