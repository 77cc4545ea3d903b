/*
 * Types of Python whose fields C reaches without Python: their struct begins with PyObject_HEAD, and has its objects
 * first, in an array `objects`, so that the garbage collector sees all of them in one way.
 */
#ifndef METAMORPHOSIS_FIELDTYPES_H
#define METAMORPHOSIS_FIELDTYPES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <structmember.h>

static inline void release_fields(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* The functions of a type with objects; all such types begin with them. */
#define WITH_OBJECTS(NAME)                                                                                             \
    static int NAME##_traverse(PyObject *self, visitproc visit, void *arg) {                                           \
        struct NAME##_fields *fields = (struct NAME##_fields *)self;                                                   \
        for (size_t index = 0; index < sizeof fields->objects / sizeof *fields->objects; index++)                      \
            Py_VISIT(fields->objects[index]);                                                                          \
        Py_VISIT(Py_TYPE(self));                                                                                       \
        return 0;                                                                                                      \
    }                                                                                                                  \
    static int NAME##_clear(PyObject *self) {                                                                          \
        struct NAME##_fields *fields = (struct NAME##_fields *)self;                                                   \
        for (size_t index = 0; index < sizeof fields->objects / sizeof *fields->objects; index++)                      \
            Py_CLEAR(fields->objects[index]);                                                                          \
        return 0;                                                                                                      \
    }                                                                                                                  \
    static void NAME##_deallocate(PyObject *self) {                                                                    \
        PyObject_GC_UnTrack(self);                                                                                     \
        NAME##_clear(self);                                                                                            \
        release_fields(self);                                                                                          \
    }

#define OBJECT(TYPE, NAME, INDEX) {NAME, T_OBJECT_EX, offsetof(struct TYPE##_fields, objects[INDEX]), 0, NULL}
#define FIELD(TYPE, NAME, KIND, FIELD) {NAME, KIND, offsetof(struct TYPE##_fields, FIELD), 0, NULL}
#define END {NULL, 0, 0, 0, NULL}

/* The specification of a type; COLLECTED is its flag for the garbage collector, or 0. */
#define SPECIFICATION(TYPE, NAME, COLLECTED)                                                                           \
    static PyType_Spec TYPE##_spec = {                                                                                 \
        .name = "metamorphosis.native._compiled." NAME,                                                                \
        .basicsize = sizeof(struct TYPE##_fields),                                                                     \
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | (COLLECTED),                                               \
        .slots = TYPE##_slots,                                                                                         \
    }

#define SLOTS_WITH_OBJECTS(TYPE)                                                                                       \
    static PyType_Slot TYPE##_slots[] = {                                                                              \
        {Py_tp_dealloc, TYPE##_deallocate},                                                                            \
        {Py_tp_traverse, TYPE##_traverse},                                                                             \
        {Py_tp_clear, TYPE##_clear},                                                                                   \
        {Py_tp_members, TYPE##_members},                                                                               \
        {0, NULL},                                                                                                     \
    }

#define SLOTS_WITHOUT_OBJECTS(TYPE)                                                                                    \
    static PyType_Slot TYPE##_slots[] = {{Py_tp_dealloc, release_fields}, {Py_tp_members, TYPE##_members}, {0, NULL}}

/* Make the types, and add them to the module; -1 with an error set. */
static inline int add_types(PyObject *module, PyType_Spec *const *specs, const char *const *names, size_t count) {
    for (size_t index = 0; index < count; index++) {
        PyObject *type = PyType_FromModuleAndSpec(module, specs[index], NULL);
        int added = type == NULL ? -1 : PyModule_AddObjectRef(module, names[index], type);
        Py_XDECREF(type);
        if (added != 0)
            return -1;
    }
    return 0;
}

/* New references to types of a module; false with an error set. */
static inline bool get_types(PyObject *module, PyObject **types, const char *const *names, size_t count) {
    for (size_t index = 0; index < count; index++) {
        types[index] = module == NULL ? NULL : PyObject_GetAttrString(module, names[index]);
        if (types[index] == NULL)
            return false;
    }
    return true;
}

#endif
