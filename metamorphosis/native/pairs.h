/* The frames of a pair's master and the answers of its slave, many at a time; see replication/pairmaster/frames.py. */
#ifndef METAMORPHOSIS_PAIRS_H
#define METAMORPHOSIS_PAIRS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern const char sync_frames_doc[];
extern const char accepted_doc[];
extern const char run_frames_doc[];
extern const char run_accepted_doc[];

PyObject *sync_frames(PyObject *module, PyObject *arguments);
PyObject *accepted(PyObject *module, PyObject *arguments);
PyObject *run_frames(PyObject *module, PyObject *arguments);
PyObject *run_accepted(PyObject *module, PyObject *arguments);

#endif
