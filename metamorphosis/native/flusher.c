/* The Python type of flush.c. */
#include "flusher.h"

#ifdef __linux__

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "flush.h"
#include "taking.h"

#define MOST_THREADS 1024

struct object {
    PyObject_HEAD
    struct flusher *flusher; /* NULL: it has ended */
};

static struct flusher *flusher_of(PyObject *self) {
    struct flusher *flusher = ((struct object *)self)->flusher;
    if (flusher == NULL)
        PyErr_SetString(PyExc_ValueError, "the flusher has ended");
    return flusher;
}

static PyObject *create(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    Py_ssize_t threads;
    if (keywords != NULL && PyDict_Size(keywords) != 0)
        return PyErr_Format(PyExc_TypeError, "Flusher takes no keywords");
    if (!PyArg_ParseTuple(arguments, "n:Flusher", &threads))
        return NULL;
    if (threads < 1 || threads > MOST_THREADS)
        return PyErr_Format(PyExc_ValueError, "1 to %d threads, not %zd", MOST_THREADS, threads);
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    PyObject *self = allocate(type, 0);
    if (self == NULL)
        return NULL;
    struct flusher *flusher = ((struct object *)self)->flusher = flusher_create((unsigned)threads);
    if (flusher == NULL) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_CLEAR(self);
    }
    return self;
}

static PyObject *submit(PyObject *self, PyObject *arguments) {
    int fd;
    long long token;
    struct flusher *flusher = flusher_of(self);
    if (flusher == NULL || !PyArg_ParseTuple(arguments, "iL:submit", &fd, &token))
        return NULL;
    errno = flusher_submit(flusher, fd, token);
    if (errno != 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return Py_NewRef(Py_None);
}

/* Append token, errno and seconds of a flush. */
static bool append(PyObject *list, const struct flush *flush) {
    return append_new(list, Py_BuildValue("(Lid)", flush->token, flush->error, flush->seconds));
}

static PyObject *take(PyObject *self, PyObject *ignored) {
    (void)ignored;
    struct flusher *flusher = flusher_of(self);
    PyObject *list = flusher == NULL ? NULL : PyList_New(0);
    if (list == NULL)
        return NULL;
    struct flush *flush = flusher_take(flusher);
    while (flush != NULL && append(list, flush)) {
        struct flush *next = flush->next;
        free(flush);
        flush = next;
    }
    if (flush != NULL) {
        PyErr_Clear();
        flusher_put_back(flusher, flush);
    }
    return list;
}

static PyObject *fileno_of(PyObject *self, PyObject *ignored) {
    (void)ignored;
    struct flusher *flusher = flusher_of(self);
    return flusher == NULL ? NULL : PyLong_FromLong(flusher_descriptor(flusher));
}

static void end_flusher(PyObject *self) {
    struct object *object = (struct object *)self;
    struct flusher *flusher = object->flusher;
    object->flusher = NULL;
    if (flusher != NULL)
        flusher_end(flusher);
}

static PyObject *end(PyObject *self, PyObject *ignored) {
    (void)ignored;
    end_flusher(self);
    return Py_NewRef(Py_None);
}

static void deallocate(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    end_flusher(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(type_doc,
             "Flusher(threads)\n--\n\nfdatasync in threads without the interpreter; see store/flushthreads.py.");
PyDoc_STRVAR(submit_doc,
             "submit(fd, token)\n--\n\nFlush a descriptor, which must stay open until the flush has ended.");
PyDoc_STRVAR(take_doc,
             "take() -> list[tuple[int, int, float]]\n--\n\nToken, errno or 0, and seconds of each ended flush.");
PyDoc_STRVAR(fileno_doc, "fileno() -> int\n--\n\nA descriptor that is readable when a flush has ended.");
PyDoc_STRVAR(end_doc, "end()\n--\n\nEnd the threads; a thread that hangs in the kernel is left alone.");

static PyMethodDef methods[] = {
    {"submit", submit, METH_VARARGS, submit_doc},
    {"take", take, METH_NOARGS, take_doc},
    {"fileno", fileno_of, METH_NOARGS, fileno_doc},
    {"end", end, METH_NOARGS, end_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, create}, {Py_tp_dealloc, deallocate}, {Py_tp_methods, methods}, {Py_tp_doc, (void *)type_doc},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "metamorphosis.native._compiled.Flusher",
    .basicsize = sizeof(struct object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

int flusher_add(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (type == NULL)
        return -1;
    int result = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return result;
}

#else

int flusher_add(PyObject *module) {
    (void)module;
    return 0;
}

#endif
