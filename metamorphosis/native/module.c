/*
 * The native part as a module of Python; see __init__.py. This file, scan.c, run.c, pairs.c and those of the client use
 * Python's limited API of 3.11, the others do not use Python.
 *
 * Only constant tables are static: all state belongs to the module.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "bodies.h"
#include "checksum.h"
#include "flusher.h"
#include "messages.h"
#include "pairfields.h"
#include "pairs.h"
#include "run.h"
#include "scan.h"
#include "sends.h"
#include "storefields.h"
#include "taking.h"
#include "turnmodule.h"

struct state {
    struct scan_state scan;
    PyObject *message_fields; /* the type */
};

static struct state *state_of(PyObject *module) { return PyModule_GetState(module); }

PyDoc_STRVAR(take_puts_doc, "take_puts(data, source, start, end, routes, ids, group) -> int\n--\n\n"
                            "Take ordinary puts from the front of data[start:end]; see broker/hotpath/contract.py.");

static PyObject *take_puts(PyObject *module, PyObject *arguments) {
    return scan(&state_of(module)->scan, arguments, false);
}

PyDoc_STRVAR(take_syncs_doc, "take_syncs(data, source, start, end, routes, ids, group) -> int\n--\n\n"
                             "The same for the records that the master of a pair sends to its slave.");

static PyObject *take_syncs(PyObject *module, PyObject *arguments) {
    return scan(&state_of(module)->scan, arguments, true);
}

static PyObject *read_records(PyObject *module, PyObject *arguments) {
    return read_messages((PyTypeObject *)state_of(module)->message_fields, arguments);
}

static PyObject *identities(PyObject *module, PyObject *messages) {
    return pack_identities((PyTypeObject *)state_of(module)->message_fields, messages);
}

PyDoc_STRVAR(crc32_doc, "crc32(data, way=0) -> int\n--\n\nThe CRC-32 of zlib, computed by one of `checksum_ways`.");

static PyObject *crc32_of(PyObject *module, PyObject *arguments) {
    Py_buffer buffer;
    Py_ssize_t way = 0;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*|n:crc32", &buffer, &way))
        return NULL;
    const struct checksum_way *ways = checksum_ways();
    Py_ssize_t known = 0;
    while (ways[known].crc32 != NULL)
        known++;
    PyObject *result = NULL;
    if (way < 0 || way >= known)
        PyErr_Format(PyExc_ValueError, "there are %zd ways, no %zd", known, way);
    else
        result = PyLong_FromUnsignedLong(ways[way].crc32(buffer.buf, (size_t)buffer.len));
    PyBuffer_Release(&buffer);
    return result;
}

PyDoc_STRVAR(checksum_ways_doc,
             "checksum_ways() -> list[str]\n--\n\nThe ways to compute a CRC on this processor; the first one is used.");

static PyObject *list_ways(PyObject *module, PyObject *ignored) {
    (void)module;
    (void)ignored;
    PyObject *names = PyList_New(0);
    for (const struct checksum_way *way = checksum_ways(); names != NULL && way->crc32 != NULL; way++)
        if (!append_new(names, PyUnicode_FromString(way->name)))
            Py_CLEAR(names);
    return names;
}

static PyMethodDef methods[] = {
    {"take_puts", take_puts, METH_VARARGS, take_puts_doc},
    {"take_syncs", take_syncs, METH_VARARGS, take_syncs_doc},
    {"read_records", read_records, METH_VARARGS, read_records_doc},
    {"identities", identities, METH_O, identities_doc},
    {"take_run", take_run, METH_VARARGS, take_run_doc},
    {"sync_frames", sync_frames, METH_VARARGS, sync_frames_doc},
    {"accepted", accepted, METH_VARARGS, accepted_doc},
    {"run_frames", run_frames, METH_VARARGS, run_frames_doc},
    {"run_accepted", run_accepted, METH_VARARGS, run_accepted_doc},
    {"crc32", crc32_of, METH_VARARGS, crc32_doc},
    {"checksum_ways", list_ways, METH_NOARGS, checksum_ways_doc},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module) {
    struct state *state = state_of(module);
    if (!make_scan_state(&state->scan) || flusher_add(module) != 0)
        return -1;
    state->message_fields = messages_add(module);
    if (state->message_fields == NULL || sends_add(module) != 0 || bodies_add(module) != 0)
        return -1;
    return storefields_add(module) != 0 || pairfields_add(module) != 0 ? -1 : turn_add(module);
}

static int traverse(PyObject *module, visitproc visit, void *arg) {
    struct state *state = state_of(module);
    if (state == NULL)
        return 0;
    Py_VISIT(state->message_fields);
    return visit_scan_state(&state->scan, visit, arg);
}

static int clear(PyObject *module) {
    struct state *state = state_of(module);
    if (state != NULL) {
        clear_scan_state(&state->scan);
        Py_CLEAR(state->message_fields);
    }
    return 0;
}

static void release(void *module) { clear(module); }

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "metamorphosis.native._compiled",
    .m_doc = "The native part; see metamorphosis/native/__init__.py.",
    .m_size = sizeof(struct state),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = release,
};

PyMODINIT_FUNC PyInit__compiled(void) { return PyModuleDef_Init(&definition); }
