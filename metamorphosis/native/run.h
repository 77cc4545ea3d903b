/* Consecutive puts of one transaction; for module.c. */
#ifndef METAMORPHOSIS_RUN_H
#define METAMORPHOSIS_RUN_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern const char take_run_doc[];

PyObject *take_run(PyObject *module, PyObject *arguments);

#endif
