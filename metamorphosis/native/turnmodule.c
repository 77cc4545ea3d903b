/*
 * The Python type `Lanes` of the turn; broker/hotpath/turn.py has its rules.
 *
 * A round calls Python twice for each store: for its place, and with its records, written or to be written later. It
 * makes no Python object for a single message. `release` lets the replies leave that wait for a batch.
 */
#include "turnmodule.h"

#ifdef __linux__

#include "fieldtypes.h"
#include "handback.h"
#include "landing.h"
#include "lingering.h"
#include "nanoseconds.h"
#include "releasing.h"
#include "taking.h"
#include "turncalls.h"

/* NULL: it is none. */
static Lingering *get_lingering(PyObject *self, PyObject *object) {
    return PyObject_TypeCheck(object, (PyTypeObject *)((Lanes *)self)->lingering_type) ? (Lingering *)object : NULL;
}

/* Complete a round whose requests were received. */
static void end_round(Lanes *lanes, PyObject *list) {
    struct turn *turn = lanes->turn;
    end_ids(lanes);
    make_data(lanes);
    PyThreadState *thread = PyEval_SaveThread();
    leave_round(turn);
    PyEval_RestoreThread(thread);
    tell_stores(lanes);
    land(lanes);
    hand_back(turn, lanes->keep, list);
    leave_stores(lanes);
    leave_files(lanes);
}

/* Whether a further round may find requests: a single client needs time to read its reply. */
static bool goes_on(const struct turn *turn, PyObject *list) {
    bool may = turn->ready_count > 1 || (turn->ready_count > 0 && turn->held_bytes > LINGER_BYTES);
    return has_ready(turn) || (PyList_Size(list) == 0 && may);
}

/* Rounds until nothing is ready, or time is over. */
static void serve(Lanes *lanes, PyObject *list) {
    if (lanes->turn->served > 0)
        lanes->turn->lone = lanes->turn->served == 1 ? lanes->turn->last : -1;
    lanes->turn->request_bytes = lanes->turn->served = 0;
    int64_t ends = nanoseconds() + TURN_NANOSECONDS;
    do {
        if (!receive_round(lanes->turn))
            break;
        end_round(lanes, list);
        leave_many_frames(lanes);
    } while ((goes_on(lanes->turn, list) && nanoseconds() < ends) || gathers(lanes, list, ends));
    leave_frames(lanes, list);
}

/* Wait for the next requests, after a turn of which Python has nothing to do. Whether they have come. */
static bool waits(const Lanes *lanes, Lingering *lingering, bool of_pair, PyObject *list) {
    struct turn *turn = lanes->turn;
    bool held = turn->held_bytes > 0;
    if (lanes->asked || PyList_Size(list) > 0 || !may_linger(lingering, turn, of_pair) ||
        (held && turn->batches.used > flight_count(&turn->line)))
        return false;
    return linger(lingering, turn, (struct expectation){of_pair, held});
}

PyDoc_STRVAR(turn_doc,
             "turn(lingering, of_pair) -> list\n--\n\n"
             "Serve the ready sockets; returns the items that are left to Python. Goes on with the next requests as\n"
             "`lingering` allows, for a member of a pair or not, as long as Python has nothing to do. With None it\n"
             "does not wait.");

static PyObject *turn(PyObject *self, PyObject *arguments) {
    Lanes *lanes = (Lanes *)self;
    PyObject *object;
    int of_pair;
    if (!PyArg_ParseTuple(arguments, "Op:turn", &object, &of_pair))
        return NULL;
    Lingering *lingering = get_lingering(self, object);
    if (lanes->busy || (lingering == NULL && object != Py_None)) {
        PyErr_SetString(PyExc_RuntimeError, "a turn is already running, or this is no Lingering");
        return NULL;
    }
    PyObject *list = PyList_New(0);
    if (list == NULL)
        return NULL;
    lanes->busy = true;
    do {
        lanes->asked = false;
        serve(lanes, list);
    } while (lingering != NULL && waits(lanes, lingering, of_pair != 0, list));
    stop_alarm(&lanes->turn->alarm);
    lanes->busy = false;
    return list;
}

PyDoc_STRVAR(linger_doc,
             "linger(lingering, of_pair, answers) -> bool\n--\n\n"
             "Wait for the next request, or for answers of the slave of a pair; the next turn serves it. False: it\n"
             "has not come, or it is time to return to the reactor.");

static PyObject *linger_now(PyObject *self, PyObject *arguments) {
    Lanes *lanes = (Lanes *)self;
    PyObject *object;
    int of_pair, answers;
    if (!PyArg_ParseTuple(arguments, "Opp:linger", &object, &of_pair, &answers))
        return NULL;
    Lingering *lingering = get_lingering(self, object);
    if (lanes->busy || lingering == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a turn is running, or this is no Lingering");
        return NULL;
    }
    lanes->busy = true;
    bool came = linger(lingering, lanes->turn, (struct expectation){of_pair != 0, answers != 0});
    stop_alarm(&lanes->turn->alarm);
    lanes->busy = false;
    return PyBool_FromLong(came);
}

PyDoc_STRVAR(may_linger_doc,
             "may_linger(lingering, of_pair) -> bool\n--\n\n"
             "Whether the last turn may be followed by a wait, if the replies that wait are for the slave only.");

static PyObject *may_linger_now(PyObject *self, PyObject *arguments) {
    PyObject *object;
    int of_pair;
    if (!PyArg_ParseTuple(arguments, "Op:may_linger", &object, &of_pair))
        return NULL;
    Lingering *lingering = get_lingering(self, object);
    if (lingering == NULL) {
        PyErr_SetString(PyExc_TypeError, "this is no Lingering");
        return NULL;
    }
    return PyBool_FromLong(may_linger(lingering, ((Lanes *)self)->turn, of_pair != 0));
}

PyDoc_STRVAR(plain_doc,
             "plain(descriptor, left, syncs) -> bool\n--\n\n"
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

PyDoc_STRVAR(slow_doc, "slow(descriptor) -> (bytes, int, list)\n--\n\n"
                       "Leave this socket to Python from now on. Returns received bytes that were not taken, and the\n"
                       "replies that wait, each as (batch or None, number, reply), with the bytes of their requests.");

static PyObject *slow(PyObject *self, PyObject *argument) {
    Lanes *lanes = (Lanes *)self;
    int descriptor = (int)PyLong_AsLong(argument);
    if (descriptor == -1 && PyErr_Occurred() != NULL)
        return NULL;
    struct lane *lane = find_lane(&lanes->turn->lanes, descriptor);
    forget_ready(lanes->turn, descriptor);
    if (lane == NULL)
        return Py_BuildValue("yn[]", "", (Py_ssize_t)0);
    Py_ssize_t size = lane->held == NULL ? 0 : (Py_ssize_t)lane->held->request_bytes;
    struct span left = {lane->left, lane->length};
    PyObject *answer = Py_BuildValue("NnN", bytes_of(left), size, take_held(lanes->turn, lane));
    if (answer == NULL)
        return NULL;
    close_line(lanes, descriptor);
    drop_lane(&lanes->turn->lanes, descriptor);
    return answer;
}

PyDoc_STRVAR(release_doc, "release(batch, failed) -> list\n--\n\n"
                          "The batch is decided: send the replies that wait for it. Returns items as `turn` does, of\n"
                          "connections whose replies Python has to send or, after a failure, to refuse.");

static PyObject *release(PyObject *self, PyObject *arguments) {
    Lanes *lanes = (Lanes *)self;
    PyObject *outcome;
    int failed;
    if (!PyArg_ParseTuple(arguments, "Op:release", &outcome, &failed))
        return NULL;
    PyObject *list = PyList_New(0);
    struct batch *batch = find_batch(&lanes->turn->batches, outcome);
    if (list == NULL || batch == NULL)
        return list;
    if (!failed) {
        PyThreadState *thread = PyEval_SaveThread();
        send_all(lanes->turn, batch);
        PyEval_RestoreThread(thread);
    }
    hand_lanes(lanes->turn, batch, failed != 0, list);
    forget_batch(lanes->turn, batch);
    return list;
}

PyDoc_STRVAR(held_doc, "held() -> int\n--\n\n"
                       "The bytes of the requests of plain connections whose replies wait.");

static PyObject *held(PyObject *self, PyObject *ignored) {
    (void)ignored;
    return PyLong_FromSize_t(((Lanes *)self)->turn->held_bytes);
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
    {"turn", turn, METH_VARARGS, turn_doc},
    {"linger", linger_now, METH_VARARGS, linger_doc},
    {"may_linger", may_linger_now, METH_VARARGS, may_linger_doc},
    {"plain", plain, METH_VARARGS, plain_doc},
    {"slow", slow, METH_O, slow_doc},
    {"line", open_line, METH_O, line_doc},
    {"resume", resume, METH_O, resume_doc},
    {"expect", expect, METH_O, expect_doc},
    {"active", active, METH_O, active_doc},
    {"release", release, METH_VARARGS, release_doc},
    {"held", held, METH_NOARGS, held_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(lanes_doc, "Lanes(epoll_set, stores, ids, max_body, max_held)\n--\n\n"
                        "The connections of a port; see broker/hotpath/turn.py.");

static PyType_Slot slots[] = {
    {Py_tp_doc, (void *)lanes_doc},
    {Py_tp_init, make_lanes_object},
    {Py_tp_traverse, visit_lanes_object},
    {Py_tp_clear, clear_lanes_object},
    {Py_tp_dealloc, free_lanes_object},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "metamorphosis.native._compiled.Lanes",
    .basicsize = sizeof(Lanes),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

int turn_add(PyObject *module) {
    PyType_Spec *specs[] = {&spec};
    const char *const names[] = {"Lanes"};
    return add_types(module, specs, names, 1) == 0 ? lingering_add(module) : -1;
}

#else

int turn_add(PyObject *module) {
    (void)module;
    return 0; /* there is no epoll */
}

#endif
