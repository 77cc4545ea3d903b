#ifdef __linux__

#define _GNU_SOURCE 1

#include "lingering.h"

#include "fieldtypes.h"
#include "nanoseconds.h"

#define LINGER_NANOSECONDS 4000000 /* after this time no further wait begins */
#define LINGER_MILLISECONDS 4      /* the longest wait asleep, where there is no alarm */
#define SOON_NANOSECONDS 500000    /* a client whose requests come at longer intervals does not gain: 8 us of 500 */
#define MOST_SKIPPED 255           /* waits without a busy poll, at most, before the next one with it */

/* The outcome of a wait: nothing came, something came during the busy poll, or after it. */
enum outcome { NOTHING, AT_ONCE, LATER };

/* Log an error of a double, which cannot be returned. */
static void report(PyObject *from) {
    if (PyErr_Occurred() != NULL)
        PyErr_WriteUnraisable(from);
}

static int64_t now_of(const Lingering *lingering) {
    if (lingering->clock == NULL)
        return nanoseconds();
    PyObject *seconds = PyObject_CallNoArgs(lingering->clock);
    double now = seconds == NULL ? 0 : PyFloat_AsDouble(seconds);
    Py_XDECREF(seconds);
    report(lingering->clock);
    return (int64_t)(now * 1e9);
}

/* The time until which the set may linger, if nothing is due before. */
static int64_t until_of(const Lingering *lingering, int64_t now) {
    int64_t until = lingering->began + LINGER_NANOSECONDS;
    PyObject *seconds = lingering->timeout == NULL ? NULL : PyObject_CallNoArgs(lingering->timeout);
    double due = seconds == NULL || seconds == Py_None ? LINGER_NANOSECONDS : 1e9 * PyFloat_AsDouble(seconds);
    Py_XDECREF(seconds);
    report(lingering->timeout);
    return due < (double)(until - now) ? now + (int64_t)due : until;
}

static enum outcome wait_here(struct turn *turn, int microseconds, int milliseconds, int64_t until) {
    int64_t polls_until = nanoseconds() + 1000 * (int64_t)microseconds;
    while (microseconds > 0 && nanoseconds() < polls_until)
        if (look(turn, 0))
            return AT_ONCE;
    if (milliseconds > 0 && set_alarm(&turn->alarm, until))
        milliseconds = -1;
    return look(turn, milliseconds) ? LATER : NOTHING;
}

static enum outcome wait_for(const Lingering *lingering, struct turn *turn, int microseconds, int milliseconds) {
    enum outcome outcome;
    if (lingering->wait == NULL) {
        PyThreadState *thread = PyEval_SaveThread();
        outcome = wait_here(turn, microseconds, milliseconds, lingering->until);
        PyEval_RestoreThread(thread);
        return outcome;
    }
    PyObject *answer = PyObject_CallFunction(lingering->wait, "ii", microseconds, milliseconds);
    outcome = answer == NULL ? NOTHING : (enum outcome)PyLong_AsLong(answer);
    Py_XDECREF(answer);
    report(lingering->wait);
    return outcome;
}

bool may_linger(const Lingering *lingering, const struct turn *turn, bool of_pair) {
    bool is_lone = lingering->soon && turn->served == 1 && turn->lone == turn->last;
    return (of_pair || is_lone) && turn->held_bytes <= LINGER_BYTES && turn->request_bytes <= LINGER_BYTES;
}

/* Note the outcome of a wait with a busy poll. */
static void note(struct polls *polls, enum outcome outcome) {
    polls->in_vain = 2 * polls->in_vain + 1;
    if (polls->in_vain > MOST_SKIPPED)
        polls->in_vain = MOST_SKIPPED;
    if (outcome == AT_ONCE)
        polls->in_vain = 0;
    polls->skips = polls->in_vain;
}

bool linger(Lingering *lingering, struct turn *turn, struct expectation expected) {
    lingering->is_over = true;
    int64_t now = now_of(lingering);
    if (lingering->until == 0)
        lingering->until = until_of(lingering, now);
    if (now >= lingering->until)
        return false;
    int milliseconds = expected.of_pair ? LINGER_MILLISECONDS : 0;
    struct polls *polls = &lingering->polls[expected.answers];
    enum outcome outcome = NOTHING;
    if (lingering->busy_poll > 0 && polls->skips == 0) {
        outcome = wait_for(lingering, turn, lingering->busy_poll, milliseconds);
        note(polls, outcome);
    } else {
        polls->skips -= polls->skips > 0;
        if (expected.of_pair)
            outcome = wait_for(lingering, turn, 0, milliseconds);
    }
    lingering->is_over = outcome == NOTHING;
    return !lingering->is_over;
}

/* The type */

static int traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(((Lingering *)self)->timeout);
    Py_VISIT(((Lingering *)self)->wait);
    Py_VISIT(((Lingering *)self)->clock);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int clear(PyObject *self) {
    Py_CLEAR(((Lingering *)self)->timeout);
    Py_CLEAR(((Lingering *)self)->wait);
    Py_CLEAR(((Lingering *)self)->clock);
    return 0;
}

static int initialize(PyObject *self, PyObject *arguments, PyObject *keywords) {
    Lingering *lingering = (Lingering *)self;
    static char *names[] = {"", "", "", "", NULL};
    PyObject *timeout, *wait = NULL, *clock = NULL;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "iO|OO:Lingering", names, &lingering->busy_poll, &timeout,
                                     &wait, &clock))
        return -1;
    clear(self);
    lingering->timeout = Py_NewRef(timeout);
    lingering->wait = wait == Py_None ? NULL : Py_XNewRef(wait);
    lingering->clock = clock == Py_None ? NULL : Py_XNewRef(clock);
    return 0;
}

PyDoc_STRVAR(begin_doc, "begin()\n--\n\nThe reactor has found a ready socket.");

static PyObject *begin(PyObject *self, PyObject *ignored) {
    Lingering *lingering = (Lingering *)self;
    int64_t now = now_of(lingering);
    (void)ignored;
    lingering->soon = lingering->is_begun && now - lingering->ended < SOON_NANOSECONDS;
    lingering->began = now;
    lingering->until = 0;
    lingering->is_over = false;
    return Py_NewRef(Py_None);
}

PyDoc_STRVAR(end_doc, "end()\n--\n\nThe set returns to the reactor.");

static PyObject *end(PyObject *self, PyObject *ignored) {
    Lingering *lingering = (Lingering *)self;
    (void)ignored;
    lingering->ended = now_of(lingering);
    lingering->is_begun = true;
    return Py_NewRef(Py_None);
}

static void deallocate(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    clear(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"begin", begin, METH_NOARGS, begin_doc},
    {"end", end, METH_NOARGS, end_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"soon", T_BOOL, offsetof(Lingering, soon), READONLY, NULL},
    {"is_over", T_BOOL, offsetof(Lingering, is_over), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(lingering_doc,
             "Lingering(busy_poll, timeout, wait, clock)\n--\n\n"
             "The waits of a set of sockets, with busy polls of so many microseconds. `timeout` returns the seconds\n"
             "until the next delayed call of the reactor, or None. A test passes a function in place of the wait\n"
             "(microseconds, milliseconds) -> 0: nothing came, 1: during the busy poll, 2: later; and a clock in\n"
             "seconds.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)lingering_doc}, {Py_tp_init, initialize}, {Py_tp_traverse, traverse}, {Py_tp_clear, clear},
    {Py_tp_dealloc, deallocate},        {Py_tp_methods, methods}, {Py_tp_members, members},   {0, NULL},
};

static PyType_Spec spec = {
    .name = "metamorphosis.native._compiled.Lingering",
    .basicsize = sizeof(Lingering),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

int lingering_add(PyObject *module) {
    PyType_Spec *specs[] = {&spec};
    const char *const names[] = {"Lingering"};
    return add_types(module, specs, names, 1);
}

#endif
