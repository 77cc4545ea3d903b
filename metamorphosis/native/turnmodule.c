/*
 * The Python type `Lanes` of the turn; broker/hotpath/turn.py has its rules.
 *
 * A round calls Python twice for each store: for its place, and with the written data. It makes no Python object for a
 * single message.
 */
#include "turnmodule.h"

#ifdef __linux__

#include <errno.h>
#include <time.h>

#include "handback.h"
#include "taking.h"
#include "turn.h"

#define BROKER_MASK 0x3ff000 /* of an id */
#define MILLISECOND_BITS 22

/* `turn` is allocated separately: it is too large for an object of the limited API. */
typedef struct {
    PyObject_HEAD
    struct turn *turn;
    PyObject *begin, *took, *failed, *find, *served, *keep; /* methods of the stores */
    PyObject *start_chunk, *carry, *ids;
    bool busy;
} Lanes;

/* Log an error that cannot be returned to a caller. */
static void report(PyObject *from) {
    if (PyErr_Occurred() != NULL)
        PyErr_WriteUnraisable(from);
}

static void begin(void *context, struct appender *appender) {
    Lanes *lanes = context;
    PyObject *answer = PyObject_CallFunction(lanes->begin, "NNi", bytes_of(appender->topic),
                                             bytes_of(appender->partition), (int)appender->syncs);
    PyObject *store;
    long long position, next_offset;
    if (answer != NULL && answer != Py_None &&
        PyArg_ParseTuple(answer, "OiLL", &store, &appender->descriptor, &position, &next_offset)) {
        Py_INCREF(store);
        appender->store = store;
        appender->position = position;
        appender->next_offset = next_offset;
    }
    Py_XDECREF(answer);
    report(lanes->begin);
}

static void find(void *context, struct reader *reader, int64_t offset) {
    Lanes *lanes = context;
    PyObject *answer = PyObject_CallFunction(lanes->find, "NNL", bytes_of(reader->topic), bytes_of(reader->partition),
                                             (long long)offset);
    PyObject *store, *segment;
    long long start, limit, end, most;
    if (answer != NULL && answer != Py_None &&
        PyArg_ParseTuple(answer, "OOiLLLL", &store, &segment, &reader->descriptor, &start, &limit, &end, &most)) {
        Py_INCREF(store);
        Py_INCREF(segment);
        reader->store = store;
        reader->segment = segment;
        reader->start = start;
        reader->limit = limit;
        reader->end = end;
        reader->most = most;
    }
    Py_XDECREF(answer);
    report(lanes->find);
}

static bool first_id(void *context, int64_t *id) {
    Lanes *lanes = context;
    PyObject *answer = PyObject_CallObject(lanes->start_chunk, NULL);
    *id = answer == NULL ? -1 : PyLong_AsLongLong(answer);
    Py_XDECREF(answer);
    bool known = PyErr_Occurred() == NULL;
    report(lanes->start_chunk);
    return known;
}

static int64_t carry(void *context, int64_t overflowed) {
    Lanes *lanes = context;
    PyObject *answer = PyObject_CallFunction(lanes->carry, "L", (long long)overflowed);
    int64_t id = answer == NULL ? -1 : PyLong_AsLongLong(answer);
    Py_XDECREF(answer);
    if (PyErr_Occurred() == NULL)
        return id;
    report(lanes->carry);
    int64_t last = overflowed - 1; /* the result of `carry` in Python */
    return (((last >> MILLISECOND_BITS) + 1) << MILLISECOND_BITS) | (last & BROKER_MASK);
}

/* Give back unused ids before other code takes one. */
static void end_ids(Lanes *lanes) {
    if (!lanes->turn->has_id)
        return;
    PyObject *next = PyLong_FromLongLong(lanes->turn->next_id);
    if (next == NULL || PyObject_SetAttrString(lanes->ids, "next_id", next) != 0)
        report(lanes->ids);
    Py_XDECREF(next);
}

/* Make the data of each store, in memory that Python keeps until it is flushed. */
static void make_data(struct turn *turn) {
    for (size_t index = 0; index < turn->appender_count; index++) {
        struct appender *appender = &turn->appenders[index];
        if (appender->bytes == 0)
            continue;
        PyObject *memory = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)appender->bytes);
        if (memory == NULL) {
            PyErr_Clear();
            appender->error = ENOMEM;
            continue;
        }
        uint8_t *data = (uint8_t *)PyBytes_AsString(memory);
        fill_records(turn, appender, data);
        appender->memory = memory;
        appender->data = data;
    }
}

/* The end of each record of a store in its data. */
static PyObject *ends_of(const struct turn *turn, const struct appender *appender) {
    PyObject *ends = PyList_New(0);
    long long end = 0;
    for (uint32_t at = appender->first; ends != NULL && at != NONE; at = turn->taken[at].next) {
        end += RECORD_HEADER_BYTES + (long long)turn->taken[at].body.length;
        PyObject *number = PyLong_FromLongLong(end);
        if (number == NULL || PyList_Append(ends, number) != 0)
            Py_CLEAR(ends);
        Py_XDECREF(number);
    }
    return ends;
}

/* Report the write to a store; returns the object that its replies wait for, NULL: unknown after an error. */
static PyObject *tell(Lanes *lanes, const struct appender *appender) {
    PyObject *store = appender->store;
    PyObject *memory = appender->memory == NULL ? Py_None : appender->memory;
    PyObject *outcome = appender->written == appender->bytes
                            ? PyObject_CallFunction(lanes->took, "OOn", store, memory, (Py_ssize_t)appender->count)
                            : PyObject_CallFunction(lanes->failed, "OONni", store, memory,
                                                    ends_of(lanes->turn, appender), (Py_ssize_t)appender->written,
                                                    appender->error);
    report(lanes->took);
    return outcome;
}

/* Report the writes to all stores. */
static void tell_stores(Lanes *lanes) {
    for (size_t index = 0; index < lanes->turn->appender_count; index++) {
        struct appender *appender = &lanes->turn->appenders[index];
        if (appender->bytes > 0)
            appender->outcome = tell(lanes, appender);
    }
}

/* Release the stores. */
static void leave_stores(struct turn *turn) {
    for (size_t index = 0; index < turn->appender_count; index++) {
        struct appender *appender = &turn->appenders[index];
        Py_XDECREF((PyObject *)appender->store);
        Py_XDECREF((PyObject *)appender->memory);
        Py_XDECREF((PyObject *)appender->outcome);
    }
}

/* Release the files. */
static void leave_files(Lanes *lanes) {
    struct turn *turn = lanes->turn;
    for (size_t index = 0; index < turn->reader_count; index++) {
        struct reader *reader = &turn->readers[index];
        if (reader->segment == NULL)
            continue;
        Py_XDECREF(PyObject_CallFunction(lanes->served, "OOn", reader->store, reader->segment, (Py_ssize_t)reader->count));
        report(lanes->served);
        Py_DECREF((PyObject *)reader->store);
        Py_DECREF((PyObject *)reader->segment);
    }
}

/* Complete a round whose requests were received. */
static void end_round(Lanes *lanes, PyObject *list) {
    struct turn *turn = lanes->turn;
    end_ids(lanes);
    make_data(turn);
    PyThreadState *thread = PyEval_SaveThread();
    leave_round(turn);
    PyEval_RestoreThread(thread);
    tell_stores(lanes);
    hand_back(turn, lanes->keep, list);
    leave_stores(turn);
    leave_files(lanes);
}

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Whether a further round may find requests: a single client needs time to read its reply. */
static bool goes_on(const struct turn *turn, PyObject *list) {
    return has_ready(turn) || (PyList_Size(list) == 0 && turn->ready_count > 1);
}

PyDoc_STRVAR(turn_doc, "turn() -> list\n--\n\n"
                       "Serve the ready sockets, without blocking; returns the items that are left to Python.");

static PyObject *turn(PyObject *self, PyObject *ignored) {
    Lanes *lanes = (Lanes *)self;
    (void)ignored;
    if (lanes->busy) {
        PyErr_SetString(PyExc_RuntimeError, "a turn is already running");
        return NULL;
    }
    PyObject *list = PyList_New(0);
    if (list == NULL)
        return NULL;
    lanes->busy = true;
    int64_t ends = nanoseconds() + TURN_NANOSECONDS;
    do {
        if (!receive_round(lanes->turn))
            break;
        end_round(lanes, list);
    } while (goes_on(lanes->turn, list) && nanoseconds() < ends);
    lanes->busy = false;
    return list;
}

PyDoc_STRVAR(plain_doc, "plain(descriptor, left, syncs) -> bool\n--\n\n"
                        "Serve this socket from now on, with `syncs` that of a pair's master; `left` was received before.\n"
                        "False: there is no memory.");

static PyObject *plain(PyObject *self, PyObject *arguments) {
    Lanes *lanes = (Lanes *)self;
    int descriptor, syncs;
    Py_buffer left;
    if (!PyArg_ParseTuple(arguments, "iy*p:plain", &descriptor, &left, &syncs))
        return NULL;
    PyObject *result = NULL;
    if (descriptor < 0 || left.len > LEFT_BYTES)
        PyErr_SetString(PyExc_ValueError, "a descriptor, and bytes of one incomplete request, are needed");
    else
        result = PyBool_FromLong(plain_lane(&lanes->turn->lanes, descriptor, left.buf, (size_t)left.len, syncs != 0));
    PyBuffer_Release(&left);
    return result;
}

PyDoc_STRVAR(slow_doc, "slow(descriptor) -> bytes\n--\n\n"
                       "Leave this socket to Python from now on; returns received bytes that were not taken.");

static PyObject *slow(PyObject *self, PyObject *argument) {
    Lanes *lanes = (Lanes *)self;
    int descriptor = (int)PyLong_AsLong(argument);
    if (descriptor == -1 && PyErr_Occurred() != NULL)
        return NULL;
    const struct lane *lane = find_lane(&lanes->turn->lanes, descriptor);
    PyObject *left = lane == NULL ? PyBytes_FromStringAndSize(NULL, 0)
                                  : PyBytes_FromStringAndSize((const char *)lane->left, (Py_ssize_t)lane->length);
    if (left == NULL)
        return NULL;
    forget_ready(lanes->turn, descriptor);
    drop_lane(&lanes->turn->lanes, descriptor);
    return left;
}

PyDoc_STRVAR(active_doc, "active(descriptor) -> bool\n--\n\n"
                         "Whether this socket, while plain, has sent bytes since the last call.");

static PyObject *active(PyObject *self, PyObject *argument) {
    Lanes *lanes = (Lanes *)self;
    int descriptor = (int)PyLong_AsLong(argument);
    if (descriptor == -1 && PyErr_Occurred() != NULL)
        return NULL;
    struct lane *lane = find_lane(&lanes->turn->lanes, descriptor);
    bool was = lane != NULL && lane->active;
    if (lane != NULL)
        lane->active = false;
    return PyBool_FromLong(was);
}

static PyMethodDef methods[] = {
    {"turn", turn, METH_NOARGS, turn_doc},
    {"plain", plain, METH_VARARGS, plain_doc},
    {"slow", slow, METH_O, slow_doc},
    {"active", active, METH_O, active_doc},
    {NULL, NULL, 0, NULL},
};

/* Get an attribute; false if there is none. */
static bool get(PyObject *object, const char *name, PyObject **value) {
    *value = PyObject_GetAttrString(object, name);
    return *value != NULL;
}

static int initialize(PyObject *self, PyObject *arguments, PyObject *keywords) {
    Lanes *lanes = (Lanes *)self;
    int set;
    Py_ssize_t max_body;
    PyObject *stores, *ids;
    static char *names[] = {"", "", "", "", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "iOOn:Lanes", names, &set, &stores, &ids, &max_body))
        return -1;
    if (lanes->turn != NULL || max_body < 0) {
        PyErr_SetString(PyExc_ValueError, "Lanes: made twice, or a negative size");
        return -1;
    }
    if (!get(stores, "begin", &lanes->begin) || !get(stores, "took", &lanes->took) ||
        !get(stores, "failed", &lanes->failed) || !get(stores, "find", &lanes->find) ||
        !get(stores, "served", &lanes->served) || !get(stores, "keep", &lanes->keep) ||
        !get(ids, "start_chunk", &lanes->start_chunk) || !get(ids, "carry", &lanes->carry))
        return -1;
    Py_INCREF(ids);
    lanes->ids = ids;
    struct turn *made = PyMem_Calloc(1, sizeof *made);
    struct calls calls = {lanes, begin, find, first_id, carry};
    if (made == NULL || !make_turn(made, set, (size_t)max_body, calls)) {
        PyMem_Free(made);
        PyErr_NoMemory();
        return -1;
    }
    lanes->turn = made;
    return 0;
}

/* All references that the object holds. */
#define FOR_EACH(DO)                                                                                                   \
    DO(lanes->begin);                                                                                                  \
    DO(lanes->took);                                                                                                   \
    DO(lanes->failed);                                                                                                 \
    DO(lanes->find);                                                                                                   \
    DO(lanes->served);                                                                                                 \
    DO(lanes->keep);                                                                                                   \
    DO(lanes->start_chunk);                                                                                            \
    DO(lanes->carry);                                                                                                  \
    DO(lanes->ids)

static int traverse(PyObject *self, visitproc visit, void *arg) {
    Lanes *lanes = (Lanes *)self;
    FOR_EACH(Py_VISIT);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int clear(PyObject *self) {
    Lanes *lanes = (Lanes *)self;
    FOR_EACH(Py_CLEAR);
    return 0;
}

static void deallocate(PyObject *self) {
    Lanes *lanes = (Lanes *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (lanes->turn != NULL) {
        free_turn(lanes->turn);
        PyMem_Free(lanes->turn);
    }
    clear(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(lanes_doc, "Lanes(epoll_set, stores, ids, max_body)\n--\n\n"
                        "The connections of a port; see broker/hotpath/turn.py.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)lanes_doc}, {Py_tp_init, initialize},       {Py_tp_traverse, traverse}, {Py_tp_clear, clear},
    {Py_tp_dealloc, deallocate},    {Py_tp_methods, methods},       {0, NULL},
};

static PyType_Spec spec = {
    .name = "metamorphosis.native._compiled.Lanes",
    .basicsize = sizeof(Lanes),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

int turn_add(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    if (type == NULL)
        return -1;
    int added = PyModule_AddObjectRef(module, "Lanes", type);
    Py_DECREF(type);
    return added;
}

#else

int turn_add(PyObject *module) {
    (void)module;
    return 0; /* there is no epoll */
}

#endif
