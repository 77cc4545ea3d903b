/* How the Python object of a turn is made, what it refers to, and how it is freed. */
#ifdef __linux__

#include "lanesobject.h"

#include "fieldtypes.h"
#include "flights.h"
#include "held.h"
#include "landing.h"
#include "turncalls.h"

/* Get an attribute; false if there is none. */
static bool get(PyObject *object, const char *name, PyObject **value) {
    *value = PyObject_GetAttrString(object, name);
    return *value != NULL;
}

/* Get an attribute that is a number; false if there is none. */
static bool get_number(PyObject *object, const char *name, long long *number) {
    PyObject *value;
    if (!get(object, name, &value))
        return false;
    *number = PyLong_AsLongLong(value);
    Py_DECREF(value);
    return PyErr_Occurred() == NULL;
}

int make_lanes_object(PyObject *self, PyObject *arguments, PyObject *keywords) {
    Lanes *lanes = (Lanes *)self;
    int set;
    Py_ssize_t max_body, max_held;
    PyObject *stores, *ids;
    static char *names[] = {"", "", "", "", "", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "iOOnn:Lanes", names, &set, &stores, &ids, &max_body,
                                     &max_held))
        return -1;
    if (lanes->turn != NULL || max_body < 0 || max_held < 0) {
        PyErr_SetString(PyExc_ValueError, "Lanes: made twice, or a negative size");
        return -1;
    }
    if (!get(stores, "begin", &lanes->begin) || !get(stores, "took", &lanes->took) ||
        !get(stores, "failed", &lanes->failed) || !get(stores, "collected", &lanes->collected) ||
        !get(stores, "decided", &lanes->decided) || !get(stores, "find", &lanes->find) ||
        !get(stores, "served", &lanes->served) || !get(stores, "keep", &lanes->keep) ||
        !get(stores, "routes", &lanes->routes) || !get(stores, "holding", &lanes->holding) ||
        !get(stores, "opened", &lanes->opened) || !get(stores, "unknown_end", &lanes->unknown_end) ||
        !get_number(stores, "most", &lanes->most) || !get_number(stores, "most_in_all", &lanes->most_in_all) ||
        !get_field_types(PyType_GetModule(Py_TYPE(self)), lanes->field_types) ||
        !get(PyType_GetModule(Py_TYPE(self)), "Lingering", &lanes->lingering_type) ||
        !get_pair_types(PyType_GetModule(Py_TYPE(self)), lanes->pair_types) ||
        !get(ids, "start_chunk", &lanes->start_chunk) || !get(ids, "carry", &lanes->carry))
        return -1;
    PyObject *functools = PyImport_ImportModule("functools");
    bool has_partial = functools != NULL && get(functools, "partial", &lanes->partial);
    Py_XDECREF(functools);
    if (!has_partial)
        return -1;
    Py_INCREF(ids);
    lanes->ids = ids;
    struct turn *made = PyMem_Calloc(1, sizeof *made);
    if (made == NULL || !make_turn(made, set, (size_t)max_body, (size_t)max_held, calls_of(lanes))) {
        PyMem_Free(made);
        PyErr_NoMemory();
        return -1;
    }
    lanes->turn = made;
    return 0;
}

/* Forget the batches, with the replies that wait for them. */
static void drop_batches(struct turn *turn) {
    for (size_t descriptor = 0; descriptor < turn->lanes.room; descriptor++)
        drop_held(turn, &turn->lanes.all[descriptor]);
    for (size_t index = 0; index < turn->batches.count; index++) {
        struct batch *batch = &turn->batches.all[index];
        PyObject *outcome = batch->outcome;
        if (outcome == NULL)
            continue;
        remove_batch(&turn->batches, batch);
        Py_DECREF(outcome);
    }
}

/* All references that the object holds. */
#define FOR_EACH(DO)                                                                                                   \
    DO(lanes->begin);                                                                                                  \
    DO(lanes->took);                                                                                                   \
    DO(lanes->failed);                                                                                                 \
    DO(lanes->collected);                                                                                              \
    DO(lanes->decided);                                                                                                \
    DO(lanes->partial);                                                                                                \
    DO(lanes->lingering_type);                                                                                         \
    DO(lanes->find);                                                                                                   \
    DO(lanes->served);                                                                                                 \
    DO(lanes->keep);                                                                                                   \
    DO(lanes->start_chunk);                                                                                            \
    DO(lanes->carry);                                                                                                  \
    DO(lanes->ids);                                                                                                    \
    DO(lanes->routes);                                                                                                 \
    DO(lanes->puts);                                                                                                   \
    DO(lanes->syncs);                                                                                                  \
    DO(lanes->holding);                                                                                                \
    DO(lanes->opened);                                                                                                 \
    DO(lanes->unknown_end)

int visit_lanes_object(PyObject *self, visitproc visit, void *arg) {
    Lanes *lanes = (Lanes *)self;
    FOR_EACH(Py_VISIT);
    for (size_t index = 0; index < FIELD_TYPES; index++)
        Py_VISIT(lanes->field_types[index]);
    for (size_t index = 0; index < PAIR_TYPES; index++)
        Py_VISIT(lanes->pair_types[index]);
    for (size_t index = 0; lanes->turn != NULL && index < lanes->turn->batches.count; index++)
        Py_VISIT((PyObject *)lanes->turn->batches.all[index].outcome);
    Py_VISIT(Py_TYPE(self));
    return lanes->turn == NULL ? 0 : visit_flights(&lanes->turn->line, visit, arg);
}

int clear_lanes_object(PyObject *self) {
    Lanes *lanes = (Lanes *)self;
    FOR_EACH(Py_CLEAR);
    for (size_t index = 0; index < FIELD_TYPES; index++)
        Py_CLEAR(lanes->field_types[index]);
    for (size_t index = 0; index < PAIR_TYPES; index++)
        Py_CLEAR(lanes->pair_types[index]);
    if (lanes->turn != NULL) {
        drop_flights(&lanes->turn->line);
        drop_batches(lanes->turn);
    }
    return 0;
}

void free_lanes_object(PyObject *self) {
    Lanes *lanes = (Lanes *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    clear_lanes_object(self);
    if (lanes->turn != NULL) {
        free_turn(lanes->turn);
        PyMem_Free(lanes->turn);
    }
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

#endif
