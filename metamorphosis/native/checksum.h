/*
 * The CRC-32 of zlib, with the instructions of the processor; chosen once, when the module is
 * loaded. Does not use Python.
 */
#ifndef METAMORPHOSIS_CHECKSUM_H
#define METAMORPHOSIS_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* A way to compute a CRC, and its name for logs. */
struct checksum_way {
    const char *name;
    uint32_t (*crc32)(const uint8_t *data, size_t length);
};

/*
 * All ways of this processor, the fastest first, the tables last, then a terminator without
 * `crc32`. The first call fills the tables and must return before any other begins.
 */
const struct checksum_way *checksum_ways(void);

#endif
