#ifdef __linux__

#define _GNU_SOURCE 1

#include "turncalls.h"

#include <errno.h>

#include "directwrites.h"
#include "flights.h"
#include "landing.h"
#include "releasing.h"
#include "taking.h"

#define BROKER_MASK 0x3ff000 /* of an id */
#define MILLISECOND_BITS 22
#define COLLECTS (-1) /* in place of a descriptor; as in store/appender.py */

/* Log an error that cannot be returned to a caller. */
static void report(PyObject *from) {
    if (PyErr_Occurred() != NULL)
        PyErr_WriteUnraisable(from);
}

/* The table of the routes for this kind of records; borrowed, NULL with an error set. */
static PyObject *table_of(Lanes *lanes, bool syncs) {
    PyObject **table = syncs ? &lanes->syncs : &lanes->puts;
    if (*table == NULL)
        *table = PyObject_GetAttrString(lanes->routes, syncs ? "syncs" : "puts");
    return *table;
}

/* The store for the names of an appender; a new reference. NULL: there is none, or an error is set. */
static PyObject *find_store(Lanes *lanes, const struct appender *appender) {
    PyObject *table = table_of(lanes, appender->syncs);
    PyObject *topic = bytes_of(appender->topic), *partition = bytes_of(appender->partition);
    PyObject *names = table == NULL || topic == NULL || partition == NULL ? NULL : PyTuple_Pack(2, topic, partition);
    PyObject *store = names == NULL ? NULL : Py_XNewRef(PyDict_GetItemWithError(table, names));
    Py_XDECREF(topic);
    Py_XDECREF(partition);
    Py_XDECREF(names);
    return store;
}

/* Ask Python for the place of the next records of a store. */
static void ask(Lanes *lanes, PyObject *found, struct appender *appender) {
    lanes->asked = true;
    PyObject *answer = PyObject_CallFunctionObjArgs(lanes->begin, found, NULL);
    PyObject *store;
    long long position, next_offset;
    int checked_only;
    if (answer != NULL && answer != Py_None &&
        PyArg_ParseTuple(answer, "OiLLp", &store, &appender->descriptor, &position, &next_offset, &checked_only)) {
        Py_INCREF(store);
        appender->store = store;
        appender->collects = appender->descriptor == COLLECTS;
        appender->checked_only = checked_only != 0;
        appender->position = position;
        appender->next_offset = next_offset;
    }
    Py_XDECREF(answer);
}

static void begin(void *context, struct appender *appender) {
    Lanes *lanes = context;
    PyObject *store = find_store(lanes, appender);
    if (store != NULL && !find_place(lanes, store, appender) && !find_pair_place(lanes, store, appender))
        ask(lanes, store, appender);
    Py_XDECREF(store);
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

void end_ids(Lanes *lanes) {
    if (!lanes->turn->has_id)
        return;
    PyObject *next = PyLong_FromLongLong(lanes->turn->next_id);
    if (next == NULL || PyObject_SetAttrString(lanes->ids, "next_id", next) != 0)
        report(lanes->ids);
    Py_XDECREF(next);
}

/* Memory of their own for the records of an appender; NULL: there is none. */
static uint8_t *make_room(const struct appender *appender, PyObject **memory) {
    *memory = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)appender->bytes);
    if (*memory == NULL)
        PyErr_Clear();
    return *memory == NULL ? NULL : (uint8_t *)PyBytes_AsString(*memory);
}

void make_data(Lanes *lanes) {
    struct turn *turn = lanes->turn;
    for (size_t index = 0; index < turn->appender_count; index++) {
        struct appender *appender = &turn->appenders[index];
        if (appender->bytes == 0)
            continue;
        PyObject *memory;
        uint8_t *data = find_room(lanes, appender, &memory);
        if (data == NULL)
            data = make_room(appender, &memory);
        if (data == NULL) {
            appender->error = ENOMEM;
            continue;
        }
        fill_records(turn, appender, data);
        appender->memory = memory;
        appender->data = data;
    }
}

/* The records of an appender alone, as bytes, or None: there was no memory. A new reference, NULL with an error set. */
static PyObject *records_of(const struct appender *appender) {
    if (appender->memory == NULL)
        return Py_NewRef(Py_None);
    if (PyBytes_Size(appender->memory) == (Py_ssize_t)appender->bytes)
        return Py_NewRef(appender->memory);
    return PyBytes_FromStringAndSize((const char *)appender->data, (Py_ssize_t)appender->bytes);
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

/* Let records join a batch; returns it, a new reference. NULL: an error is set. */
static PyObject *collect(Lanes *lanes, struct appender *appender) {
    lanes->asked = true;
    PyObject *answer =
        PyObject_CallFunction(lanes->collected, "OOn", appender->store, appender->memory, (Py_ssize_t)appender->count);
    PyObject *outcome = NULL;
    if (answer != NULL && PyArg_ParseTuple(answer, "OI", &outcome, &appender->before))
        Py_INCREF(outcome);
    else
        outcome = NULL;
    Py_XDECREF(answer);
    return outcome;
}

/* Pass records on that are written later; returns the batch that their replies wait for, NULL: unknown after an error.
 */
static PyObject *pass_on(Lanes *lanes, struct appender *appender) {
    if (appender->memory == NULL) {
        PyErr_NoMemory();
        report(lanes->collected);
        return NULL;
    }
    PyObject *outcome =
        appender->sends && is_open(&lanes->turn->line) ? launch(lanes, appender) : collect(lanes, appender);
    if (outcome != NULL && !await(lanes, outcome))
        Py_CLEAR(outcome);
    report(lanes->collected);
    return outcome;
}

/* Report the write to a store; returns the object that its replies wait for, NULL: unknown after an error. */
static PyObject *tell(Lanes *lanes, const struct appender *appender) {
    if (appender->written == appender->bytes && account(lanes, appender))
        return Py_NewRef(Py_None);
    lanes->asked = true;
    PyObject *store = appender->store, *records = records_of(appender);
    PyObject *outcome =
        appender->written == appender->bytes
            ? PyObject_CallFunction(lanes->took, "ONn", store, records, (Py_ssize_t)appender->count)
            : PyObject_CallFunction(lanes->failed, "ONNni", store, records, ends_of(lanes->turn, appender),
                                    (Py_ssize_t)appender->written, appender->error);
    if (outcome == NULL && appender->written == appender->bytes)
        withdraw(lanes, store);
    report(lanes->took);
    return outcome;
}

void tell_stores(Lanes *lanes) {
    lanes->has_time = false;
    for (size_t index = 0; index < lanes->turn->appender_count; index++) {
        struct appender *appender = &lanes->turn->appenders[index];
        if (appender->bytes > 0)
            appender->outcome = appender->collects ? pass_on(lanes, appender) : tell(lanes, appender);
    }
}

void leave_stores(Lanes *lanes) {
    struct turn *turn = lanes->turn;
    Py_CLEAR(lanes->puts);
    Py_CLEAR(lanes->syncs);
    for (size_t index = 0; index < turn->appender_count; index++) {
        struct appender *appender = &turn->appenders[index];
        Py_XDECREF((PyObject *)appender->store);
        Py_XDECREF((PyObject *)appender->memory);
        Py_XDECREF((PyObject *)appender->outcome);
    }
}

void leave_files(Lanes *lanes) {
    struct turn *turn = lanes->turn;
    for (size_t index = 0; index < turn->reader_count; index++) {
        struct reader *reader = &turn->readers[index];
        if (reader->segment == NULL)
            continue;
        Py_XDECREF(
            PyObject_CallFunction(lanes->served, "OOn", reader->store, reader->segment, (Py_ssize_t)reader->count));
        report(lanes->served);
        Py_DECREF((PyObject *)reader->store);
        Py_DECREF((PyObject *)reader->segment);
    }
}

struct calls calls_of(Lanes *lanes) { return (struct calls){lanes, begin, find, first_id, carry}; }

#endif
