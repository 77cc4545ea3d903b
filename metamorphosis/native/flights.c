#ifdef __linux__

#define _GNU_SOURCE 1

#include "flights.h"

#include "directwrites.h"
#include "releasing.h"

static bool is(const Lanes *lanes, PyObject *object, int type) {
    return object != NULL && PyObject_TypeCheck(object, (PyTypeObject *)lanes->pair_types[type]);
}

static PyObject *list_of(const struct under_way_fields *under_way) { return under_way->objects[UNDER_WAY_FLIGHTS]; }

bool find_pair(const Lanes *lanes, PyObject *appender, struct pair *pair) {
    if (!is(lanes, appender, PAIR_APPENDER_FIELDS))
        return false;
    pair->appender = (struct pair_appender_fields *)appender;
    PyObject *log = pair->appender->objects[PAIR_LOG], *syncs = pair->appender->objects[PAIR_SYNCS];
    if (!is(lanes, log, PAIRED_FIELDS) || !is(lanes, syncs, SYNCS_FIELDS))
        return false;
    pair->log = (struct paired_fields *)log;
    pair->syncs = (struct syncs_fields *)syncs;
    PyObject *under_way = pair->syncs->objects[SYNCS_FLIGHTS];
    if (!is(lanes, under_way, UNDER_WAY_FIELDS))
        return false;
    pair->under_way = (struct under_way_fields *)under_way;
    PyObject *head = pair->log->objects[PAIRED_HEAD];
    return list_of(pair->under_way) != NULL && PyList_Check(list_of(pair->under_way)) && head != NULL &&
           PyBytes_Check(head);
}

static bool is_joined(const struct pair *pair) {
    return pair->log->objects[PAIRED_STANDING] == pair->appender->objects[PAIR_JOINED];
}

bool find_pair_place(const Lanes *lanes, PyObject *log, struct appender *appender) {
    struct pair pair;
    if (!is(lanes, log, PAIRED_FIELDS))
        return false;
    PyObject *found = ((struct paired_fields *)log)->objects[PAIRED_APPENDER];
    if (!find_pair(lanes, found, &pair) || (PyObject *)pair.log != log || !is_joined(&pair) ||
        pair.syncs->waiting >= pair.syncs->limit || !pair.syncs->is_connected)
        return false;
    appender->store = Py_NewRef(found);
    appender->collects = appender->checked_only = true;
    appender->sends = !pair.syncs->is_planned;
    appender->next_offset = pair.log->next_offset;
    return true;
}

/* Beginning */

static PyObject *make_flight(const struct pair *pair, const struct appender *appender, PyObject *batch,
                             double deadline) {
    PyObject *early = PyDict_New();
    PyObject *made =
        early == NULL ? NULL : PyType_GenericAlloc((PyTypeObject *)pair->appender->objects[PAIR_FLIGHT_TYPE], 0);
    if (made == NULL) {
        Py_XDECREF(early);
        return NULL;
    }
    struct flight_fields *flight = (struct flight_fields *)made;
    flight->objects[FLIGHT_SENDER] = Py_NewRef((PyObject *)pair->log);
    flight->objects[FLIGHT_BATCH] = Py_NewRef(batch);
    flight->objects[FLIGHT_EARLY] = early;
    flight->objects[FLIGHT_RUN] = Py_NewRef((PyObject *)appender->memory);
    flight->objects[FLIGHT_SIZES] = Py_NewRef(Py_None);
    flight->number = pair->syncs->number;
    flight->count = (long long)appender->count;
    flight->offset = pair->log->next_offset;
    flight->deadline = deadline;
    return made;
}

static bool call(PyObject *object, const char *name, PyObject *argument) {
    PyObject *method = object == NULL ? NULL : PyObject_GetAttrString(object, name);
    PyObject *result = method == NULL ? NULL : PyObject_CallFunctionObjArgs(method, argument, NULL);
    Py_XDECREF(method);
    Py_XDECREF(result);
    return result != NULL;
}

/* The same for what may plan the end of a turn in Python. */
static bool ask(Lanes *lanes, PyObject *object, const char *name, PyObject *argument) {
    lanes->asked = true;
    return call(object, name, argument);
}

/* Put a flight into the two places in which Python looks for it; false: it is in none. */
static bool add(const struct pair *pair, PyObject *flight) {
    if (!call(pair->log->objects[PAIRED_FLIGHTS], "append", flight))
        return false;
    if (PyList_Append(list_of(pair->under_way), flight) == 0)
        return true;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    call(pair->log->objects[PAIRED_FLIGHTS], "pop", NULL);
    PyErr_Restore(type, value, traceback);
    return false;
}

/* The deadline of a flight that begins now; below 0: an error is set. */
static double get_deadline(const struct pair *pair) {
    PyObject *now = pair->syncs->objects[SYNCS_NOW];
    PyObject *seconds = now == NULL ? NULL : PyObject_CallNoArgs(now);
    double deadline = seconds == NULL ? -1 : PyFloat_AsDouble(seconds) + pair->syncs->timeout;
    Py_XDECREF(seconds);
    return PyErr_Occurred() == NULL ? deadline : -1;
}

static long long memory_of(const struct pair *pair, long long count, long long bytes) {
    return bytes + count * pair->syncs->record_bytes;
}

bool begin_flight(Lanes *lanes, const struct pair *pair, const struct appender *appender, PyObject **batch,
                  PyObject **flight) {
    long long count = (long long)appender->count, bytes = (long long)appender->bytes;
    double deadline = get_deadline(pair);
    if (deadline < 0)
        return false;
    *batch = PyObject_CallFunction(pair->appender->objects[PAIR_MAKE_BATCH], "OLOL", (PyObject *)pair->log,
                                   pair->log->next_offset, (PyObject *)appender->memory, count);
    *flight = *batch == NULL ? NULL : make_flight(pair, appender, *batch, deadline);
    if (*flight == NULL || !add(pair, *flight)) {
        Py_CLEAR(*batch);
        Py_CLEAR(*flight);
        return false;
    }
    pair->syncs->number += count;
    pair->syncs->waiting += memory_of(pair, count, bytes);
    pair->log->next_offset += bytes;
    if (deadline < pair->syncs->due) {
        PyObject *done = PyObject_CallMethod((PyObject *)pair->syncs, "_look_at", "d", deadline);
        Py_XDECREF(done);
        if (done == NULL)
            PyErr_WriteUnraisable(lanes->decided);
    }
    return true;
}

/* Landing */

/* Whether it is the oldest flight of its partition. */
static bool is_first(const struct pair *pair, PyObject *flight) {
    PyObject *flights = pair->log->objects[PAIRED_FLIGHTS];
    PyObject *first = flights == NULL ? NULL : PySequence_GetItem(flights, 0);
    Py_XDECREF(first);
    PyErr_Clear();
    return first == flight;
}

static bool is_shifted(PyObject *batch) {
    PyObject *shifted = PyObject_GetAttrString(batch, "shifted");
    Py_XDECREF(shifted);
    PyErr_Clear();
    return shifted != Py_False;
}

bool is_usual(const Lanes *lanes, const struct pair *pair, PyObject *object) {
    PyObject *store = pair->appender->objects[PAIR_STORE];
    if (!is(lanes, object, FLIGHT_FIELDS) || store == NULL ||
        !PyObject_TypeCheck(store, (PyTypeObject *)lanes->field_types[LOG_FIELDS]))
        return false;
    const struct flight_fields *flight = (struct flight_fields *)object;
    PyObject *batch = flight->objects[FLIGHT_BATCH], *early = flight->objects[FLIGHT_EARLY];
    return batch != NULL && batch != Py_None && flight->done == 0 && early != NULL && PyDict_Check(early) &&
           PyDict_Size(early) == 0 && flight->offset == ((struct log_fields *)store)->next_offset && is_joined(pair) &&
           is_first(pair, object) && !is_shifted(batch);
}

/* As `PairBatch.all_stored`, with its replies from here; false: an error is set. */
static bool settle(const struct pair *pair, PyObject *batch) {
    PyObject *nothing = PyBytes_FromStringAndSize(NULL, 0), *zero = PyLong_FromLong(0), *waiters = PyList_New(0);
    bool done = nothing != NULL && zero != NULL && waiters != NULL &&
                PyObject_SetAttrString(batch, "state", pair->appender->objects[PAIR_STORED]) == 0 &&
                PyObject_SetAttrString(batch, "_unsettled", zero) == 0 &&
                PyObject_SetAttrString(batch, "run", nothing) == 0 &&
                PyObject_SetAttrString(batch, "waiters", waiters) == 0;
    Py_XDECREF(nothing);
    Py_XDECREF(zero);
    Py_XDECREF(waiters);
    return done;
}

/* Whether nothing but the set of sockets waits for a batch. */
static bool waits_here(PyObject *batch) {
    PyObject *waiters = PyObject_GetAttrString(batch, "waiters");
    bool here = waiters != NULL && PyList_Check(waiters) && PyList_Size(waiters) == 1;
    Py_XDECREF(waiters);
    PyErr_Clear();
    return here;
}

/* Both brokers have the records of a batch: its replies leave. */
static bool acknowledge(Lanes *lanes, const struct pair *pair, PyObject *outcome) {
    struct batch *batch = find_batch(&lanes->turn->batches, outcome);
    if (batch == NULL || !waits_here(outcome))
        return ask(lanes, outcome, "all_stored", NULL);
    PyThreadState *thread = PyEval_SaveThread();
    bool all = send_all(lanes->turn, batch);
    PyEval_RestoreThread(thread);
    if (!all)
        return ask(lanes, outcome, "all_stored", NULL);
    bool settled = settle(pair, outcome);
    forget_batch(lanes->turn, batch);
    return settled;
}

/* As `UnderWay.trim`. */
static bool trim(const Lanes *lanes, struct under_way_fields *under_way) {
    PyObject *list = list_of(under_way);
    Py_ssize_t first = (Py_ssize_t)under_way->first, count = PyList_Size(list);
    for (; first < count; first++) {
        PyObject *flight = PyList_GetItem(list, first);
        if (!is(lanes, flight, FLIGHT_FIELDS) ||
            ((struct flight_fields *)flight)->done != ((struct flight_fields *)flight)->count)
            break;
    }
    under_way->first = first;
    if (first < count && first <= under_way->many)
        return true;
    under_way->first = 0;
    return PyList_SetSlice(list, 0, first, NULL) == 0;
}

/* As `PairedLog.passed` and `Syncs.acknowledged`. */
static bool pass(Lanes *lanes, const struct pair *pair, PyObject *flight) {
    bool done = is_joined(pair) ? call(pair->log->objects[PAIRED_FLIGHTS], "popleft", NULL)
                                : ask(lanes, (PyObject *)pair->log, "passed", flight);
    if (!done)
        return false;
    pair->syncs->is_heard = true;
    return pair->syncs->failures ? ask(lanes, (PyObject *)pair->syncs, "acknowledged", NULL)
                                 : trim(lanes, pair->under_way);
}

bool flight_landed(Lanes *lanes, const struct pair *pair, PyObject *object, const struct appender *place) {
    struct flight_fields *flight = (struct flight_fields *)object;
    pair->syncs->waiting -= memory_of(pair, flight->count, (long long)place->bytes);
    flight->done = flight->count;
    PyObject *batch = Py_NewRef(flight->objects[FLIGHT_BATCH]);
    bool acknowledged = acknowledge(lanes, pair, batch);
    Py_DECREF(batch);
    if (!acknowledged)
        return false;
    if (!account(lanes, place)) { /* after the replies, as in turncalls.c */
        lanes->asked = true;
        PyObject *told = PyObject_CallFunction(lanes->took, "OOn", (PyObject *)place->store, (PyObject *)place->memory,
                                               (Py_ssize_t)place->count);
        Py_XDECREF(told);
        if (told == NULL) {
            withdraw(lanes, (PyObject *)place->store);
            return false;
        }
    }
    return pass(lanes, pair, object);
}

#endif
