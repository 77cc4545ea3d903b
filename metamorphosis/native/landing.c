#ifdef __linux__

#define _GNU_SOURCE 1

#include "landing.h"

#include <errno.h>
#include <sys/socket.h>

#include "directwrites.h"
#include "flights.h"
#include "handback.h"
#include "nanoseconds.h"
#include "syscalls.h"
#include "taking.h"

#define MUCH_OUT (128 << 10)       /* bytes of frames that leave before the end of the turn */
#define QUIET_NANOSECONDS 60000    /* as in gathering.py */
#define GATHER_NANOSECONDS 3000000 /* beyond the time of a turn: 1024 puts of 1 KiB take 2 ms */

/* The records of a flight stay with Python until they are flushed, and the flight until it is over. */
static void release_flight(struct flight *flight) {
    Py_DECREF((PyObject *)flight->flight);
    Py_DECREF((PyObject *)flight->appender);
    Py_DECREF((PyObject *)flight->memory);
}

void drop_flights(struct line *line) {
    for (struct flight *flight = first_flight(line); flight != NULL; flight = first_flight(line)) {
        struct flight dropped = *flight;
        drop_flight(line);
        release_flight(&dropped);
    }
}

int visit_flights(const struct line *line, visitproc visit, void *arg) {
    for (size_t index = line->first; index < line->count; index++) {
        const struct flight *flight = &line->flights[index];
        Py_VISIT((PyObject *)flight->flight);
        Py_VISIT((PyObject *)flight->appender);
    }
    return 0;
}

/* After an error of the caller: the answers cannot be matched any more. */
static void give_up(Lanes *lanes, PyObject *from) {
    PyErr_WriteUnraisable(from);
    if (is_open(&lanes->turn->line))
        shutdown(lanes->turn->line.descriptor, SHUT_RDWR);
}

/* Sending */

/* Let the frames of a flight leave with the turn. Takes no reference, but keeps its own. */
static bool fly(struct line *line, const struct pair *pair, const struct appender *appender, PyObject *object) {
    PyObject *head = pair->log->objects[PAIRED_HEAD];
    struct span start = {(const uint8_t *)PyBytes_AsString(head), (size_t)PyBytes_Size(head)};
    struct flight flight = {
        .flight = object,
        .appender = appender->store,
        .memory = appender->memory,
        .run = {appender->data, appender->bytes},
        .count = appender->count,
        .number = ((struct flight_fields *)object)->number,
        .opaques = pair->appender->opaques,
        .offset = ((struct flight_fields *)object)->offset,
    };
    if (!make_flight_room(line, start, &flight))
        return false;
    add_flight(line, start, &flight);
    Py_INCREF(object);
    Py_INCREF(flight.appender);
    Py_INCREF(flight.memory);
    return true;
}

PyObject *launch(Lanes *lanes, const struct appender *appender) {
    struct pair pair;
    PyObject *batch, *flight;
    if (!find_pair(lanes, appender->store, &pair) || !begin_flight(lanes, &pair, appender, &batch, &flight))
        return NULL;
    if (!fly(&lanes->turn->line, &pair, appender, flight)) {
        PyErr_NoMemory();
        give_up(lanes, flight); /* the records were not sent: its loss ends their flight */
    }
    Py_DECREF(flight);
    return batch;
}

/* Send the frames of this turn; those that the socket does not take stay in front of the next ones. */
static void send_out(Lanes *lanes) {
    struct line *line = &lanes->turn->line;
    PyThreadState *thread = PyEval_SaveThread();
    size_t sent = line->out_to == line->descriptor ? send_frames(line) : 0;
    PyEval_RestoreThread(thread);
    drop_frames(line, sent);
    line->wanted -= line->out_records < line->wanted ? line->out_records : line->wanted;
    line->out_records = 0;
}

void leave_frames(Lanes *lanes, PyObject *list) {
    struct line *line = &lanes->turn->line;
    if (line->out_bytes == 0)
        return;
    send_out(lanes);
    if (line->out_bytes == 0)
        return;
    struct span rest = {line->out, line->out_bytes};
    PyObject *item = Py_BuildValue("ii[N]", HANDED_UNSENT, line->out_to, bytes_of(rest));
    line->out_bytes = 0;
    if (item == NULL || PyList_Insert(list, 0, item) != 0)
        give_up(lanes, list);
    Py_XDECREF(item);
}

/* Whether frames of this turn wait for those of other producers. */
static bool waits_for_more(const struct line *line) { return line->out_bytes > 0 && line->out_records < line->wanted; }

void leave_many_frames(Lanes *lanes) {
    if (lanes->turn->line.out_bytes > MUCH_OUT && !waits_for_more(&lanes->turn->line))
        send_out(lanes);
}

bool gathers(Lanes *lanes, PyObject *list, int64_t ends) {
    struct turn *turn = lanes->turn;
    if (PyList_Size(list) > 0 || !waits_for_more(&turn->line))
        return false;
    PyThreadState *thread = PyEval_SaveThread();
    int64_t now = nanoseconds(), until = now + QUIET_NANOSECONDS;
    while (now < ends + GATHER_NANOSECONDS && now < until && !look(turn, 0))
        now = nanoseconds();
    PyEval_RestoreThread(thread);
    if (!has_ready(turn))
        turn->line.wanted = 0; /* they do not come soon */
    return has_ready(turn);
}

/* Landing */

/* Write the records of a flight; returns the errno. */
static int write_flight(const struct flight *flight, struct appender *place) {
    ssize_t written;
    PyThreadState *thread = PyEval_SaveThread();
    do
        written = sys_pwrite(place->descriptor, flight->run.start, flight->run.length, (off_t)place->position);
    while (written < 0 && errno == EINTR);
    int error = written < 0 ? errno : 0;
    PyEval_RestoreThread(thread);
    place->written = written < 0 ? 0 : (size_t)written;
    return error;
}

/* Write the records of a usual flight at the place of its store, and account for them; false: an error is set. */
static bool land_at(Lanes *lanes, const struct pair *pair, const struct flight *flight, struct appender *place) {
    place->bytes = flight->run.length;
    place->count = flight->count;
    place->data = flight->run.start;
    place->memory = flight->memory;
    int error = write_flight(flight, place);
    if (place->written == place->bytes)
        return flight_landed(lanes, pair, flight->flight, place);
    lanes->asked = true;
    PyObject *done = PyObject_CallMethod(flight->appender, "landed", "Oni", (PyObject *)flight->flight,
                                         (Py_ssize_t)place->written, error);
    Py_XDECREF(done);
    return done != NULL;
}

/* Let Python store the records of a flight, in another than the usual case; false: the caller takes the answers. */
static bool land_in_python(Lanes *lanes, const struct flight *flight) {
    lanes->asked = true;
    PyObject *taken = PyObject_CallMethod(flight->appender, "accepted", "O", (PyObject *)flight->flight);
    Py_XDECREF(taken);
    return taken == Py_True;
}

/* Have the records of a flight stored, which the slave has accepted; false: the caller takes the answers. */
static bool land_flight(Lanes *lanes, struct flight *flight) {
    struct pair pair;
    struct appender place = {0};
    bool taken = true;
    if (find_pair(lanes, flight->appender, &pair) && is_usual(lanes, &pair, flight->flight) &&
        find_place(lanes, pair.appender->objects[PAIR_STORE], &place))
        land_at(lanes, &pair, flight, &place);
    else
        taken = land_in_python(lanes, flight);
    Py_XDECREF((PyObject *)place.store);
    if (PyErr_Occurred() != NULL)
        give_up(lanes, flight->appender);
    return taken;
}

/* Take the answers at the front of the bytes; returns how those that are left begin. */
static enum reading take_flights(Lanes *lanes, struct span *bytes) {
    struct line *line = &lanes->turn->line;
    const uint8_t *past = bytes->start, *end = past + bytes->length;
    enum reading read = WHOLE;
    while (past < end && read == WHOLE) {
        struct flight *flight = line->paused ? NULL : first_flight(line);
        const uint8_t *next = past;
        read = flight == NULL ? OTHER : take_answers(flight, &next, end);
        if (read != WHOLE)
            break;
        struct flight taken = *flight;
        drop_flight(line);
        if (land_flight(lanes, &taken))
            past = next;
        else
            read = OTHER;
        release_flight(&taken);
    }
    *bytes = (struct span){past, (size_t)(end - past)};
    return read;
}

void land(Lanes *lanes) {
    struct turn *turn = lanes->turn;
    for (size_t index = 0; index < turn->answered_count; index++) {
        struct answered *answered = &turn->answered[index];
        if (!answered->answers)
            continue;
        enum reading read = take_flights(lanes, &answered->rest);
        struct lane *lane = find_lane(&turn->lanes, answered->descriptor);
        if (answered->rest.length == 0)
            continue;
        if (read == PARTIAL && lane != NULL && keep_left(lane, answered->rest.start, answered->rest.length))
            answered->rest.length = 0;
        else
            turn->line.paused = true;
    }
}

/* The line */

const char line_doc[] =
    "line(descriptor) -> bool\n--\n\n"
    "Serve this socket from now on, as that to the slave of a pair: its answers are left to Python until\n"
    "`resume`; see replication/pairmaster/appending.py. False: there is no memory.";

PyObject *open_line(PyObject *self, PyObject *argument) {
    struct turn *turn = ((Lanes *)self)->turn;
    int descriptor = (int)PyLong_AsLong(argument);
    if (descriptor == -1 && PyErr_Occurred() != NULL)
        return NULL;
    if (descriptor < 0) {
        PyErr_SetString(PyExc_ValueError, "a descriptor is needed");
        return NULL;
    }
    drop_flights(&turn->line);
    if (!plain_lane(&turn->lanes, descriptor, NULL, 0, false))
        return PyBool_FromLong(0);
    find_lane(&turn->lanes, descriptor)->answers = true;
    turn->line.descriptor = descriptor;
    turn->line.paused = true;
    turn->line.wanted = 0;
    return PyBool_FromLong(1);
}

void close_line(Lanes *lanes, int descriptor) {
    struct line *line = &lanes->turn->line;
    if (line->descriptor != descriptor)
        return;
    line->descriptor = NO_LINE;
    drop_flights(line);
}

const char expect_doc[] = "expect(count)\n--\n\n"
                          "So many producers have their replies: their next puts leave together, if they come soon.";

PyObject *expect(PyObject *self, PyObject *argument) {
    Py_ssize_t count = PyLong_AsSsize_t(argument);
    if (count < 0) {
        if (PyErr_Occurred() == NULL)
            PyErr_SetString(PyExc_ValueError, "a negative number");
        return NULL;
    }
    ((Lanes *)self)->turn->line.wanted += (size_t)count;
    return Py_NewRef(Py_None);
}

const char resume_doc[] =
    "resume(number)\n--\n\n"
    "Everything that the slave has sent is taken: the next bytes begin with an answer. The frames\n"
    "below this number have theirs.";

PyObject *resume(PyObject *self, PyObject *argument) {
    struct line *line = &((Lanes *)self)->turn->line;
    long long number = PyLong_AsLongLong(argument);
    if (number == -1 && PyErr_Occurred() != NULL)
        return NULL;
    for (struct flight *flight = first_flight(line); flight != NULL && flight->number < number;
         flight = first_flight(line)) {
        struct flight dropped = *flight;
        drop_flight(line);
        release_flight(&dropped);
    }
    line->paused = false;
    return Py_NewRef(Py_None);
}

#endif
