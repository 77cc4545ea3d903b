/*
 * The CRC-32 of zlib, by what the processor offers; chosen once, when the module is loaded. Knows nothing of Python.
 */
#ifndef METAMORPHOSIS_CHECKSUM_H
#define METAMORPHOSIS_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* How a CRC is computed, and a word for logs. */
struct checksum_way {
    const char *name;
    uint32_t (*crc32)(const uint8_t *data, size_t length);
};

/*
 * Every way that this processor can go, the fastest first, the tables last, and then one without `crc32`. The first call
 * fills the tables: it returns before any other begins.
 */
const struct checksum_way *checksum_ways(void);

#endif
