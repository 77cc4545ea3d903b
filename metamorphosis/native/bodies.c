/*
 * The body of a reply while it arrives: a bytes object that is received into. A copy of it at its end would cost more
 * than the reading of its records: the allocator gives a MiB back to the system each time, and 480 pages are mapped
 * anew.
 */
#include "bodies.h"

struct body {
    PyObject_HEAD
    PyObject *bytes;
};

static PyObject *create(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    Py_ssize_t length;
    if (keywords != NULL && PyDict_Size(keywords) != 0)
        return PyErr_Format(PyExc_TypeError, "Body takes no keywords");
    if (!PyArg_ParseTuple(arguments, "n:Body", &length))
        return NULL;
    if (length < 0)
        return PyErr_Format(PyExc_ValueError, "a body has no %zd bytes", length);
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    PyObject *self = allocate(type, 0);
    if (self == NULL)
        return NULL;
    ((struct body *)self)->bytes = PyBytes_FromStringAndSize(NULL, length);
    if (((struct body *)self)->bytes == NULL)
        Py_CLEAR(self);
    return self;
}

static void deallocate(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((struct body *)self)->bytes);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* A view keeps the body, and that the bytes. */
static int get_buffer(PyObject *self, Py_buffer *view, int flags) {
    PyObject *bytes = ((struct body *)self)->bytes;
    return PyBuffer_FillInfo(view, self, PyBytes_AsString(bytes), PyBytes_Size(bytes), 0, flags);
}

static PyObject *whole(PyObject *self, PyObject *ignored) {
    (void)ignored;
    return Py_NewRef(((struct body *)self)->bytes);
}

PyDoc_STRVAR(type_doc, "Body(length)\n--\n\nThe bytes of a reply while they arrive; see client/network/replies.py.");
PyDoc_STRVAR(whole_doc, "whole() -> bytes\n--\n\nThe bytes themselves, which must not be changed any more.");

static PyMethodDef methods[] = {
    {"whole", whole, METH_NOARGS, whole_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, create},           {Py_tp_dealloc, deallocate},   {Py_tp_methods, methods},
    {Py_bf_getbuffer, get_buffer}, {Py_tp_doc, (void *)type_doc}, {0, NULL},
};

static PyType_Spec spec = {
    .name = "metamorphosis.native._compiled.Body",
    .basicsize = sizeof(struct body),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

int bodies_add(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (type == NULL)
        return -1;
    int result = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return result;
}
