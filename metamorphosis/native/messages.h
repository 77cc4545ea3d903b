/* Received messages: the type of their fields, and the reading of records; for module.c. */
#ifndef METAMORPHOSIS_MESSAGES_H
#define METAMORPHOSIS_MESSAGES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Add the type MessageFields to the module; a new reference to it, NULL: an error is set. */
PyObject *messages_add(PyObject *module);

extern const char read_records_doc[];

/* `read_records`, for types below `fields`. */
PyObject *read_messages(PyTypeObject *fields, PyObject *arguments);

extern const char identities_doc[];

/* `identities`, of instances of `fields`. */
PyObject *pack_identities(PyTypeObject *fields, PyObject *messages);

#endif
