/* Ordinary puts of a chunk for Python's batches: the twin of `scan`; for module.c. */
#ifndef METAMORPHOSIS_SCAN_H
#define METAMORPHOSIS_SCAN_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

/* What `scan` needs of Python; part of the module's state. */
struct scan_state {
    PyObject *store_error;
    PyObject *batch, *open_batch, *count, *pieces, *next_offset, *puts, *syncs;    /* names */
    PyObject *refuse, *max_body, *next_id, *carry, *checked_only, *replies, *runs; /* likewise */
    uint32_t (*crc32)(const uint8_t *data, size_t length);
};

/* False: an error is set. */
bool make_scan_state(struct scan_state *state);
int visit_scan_state(struct scan_state *state, visitproc visit, void *arg);
void clear_scan_state(struct scan_state *state);

/* `take_puts` of the module or, with `syncs`, `take_syncs`; NULL: an error is set. */
PyObject *scan(struct scan_state *state, PyObject *arguments, bool syncs);

#endif
