#ifdef __linux__

#define _GNU_SOURCE 1

#include "releasing.h"

#include "handback.h"

bool send_all(struct turn *turn, const struct batch *batch) {
    bool all = true;
    for (size_t index = 0; index < batch->lane_count; index++) {
        struct lane *lane = find_lane(&turn->lanes, batch->lanes[index]);
        if (lane == NULL || lane->held == NULL || !let_leave(lane->held, batch->outcome))
            continue;
        send_held(turn, batch->lanes[index], lane);
        all = all && (lane->held == NULL || !lane->held->is_full);
    }
    return all;
}

void hand_lanes(struct turn *turn, const struct batch *batch, bool failed, PyObject *list) {
    for (size_t index = 0; index < batch->lane_count; index++) {
        struct lane *lane = find_lane(&turn->lanes, batch->lanes[index]);
        if (lane != NULL && lane->held != NULL && (failed || lane->held->is_full))
            hand_held(turn, batch->lanes[index], lane, list);
    }
}

/* Append to the waiters of a batch what calls the set with it. */
static bool watch(Lanes *lanes, PyObject *outcome) {
    PyObject *waiters = PyObject_GetAttrString(outcome, "waiters");
    PyObject *waiter =
        waiters == NULL ? NULL : PyObject_CallFunctionObjArgs(lanes->partial, lanes->decided, outcome, NULL);
    bool done = waiter != NULL && PyList_Append(waiters, waiter) == 0;
    Py_XDECREF(waiters);
    Py_XDECREF(waiter);
    return done;
}

bool await(Lanes *lanes, PyObject *outcome) {
    bool is_new;
    struct batch *batch = add_batch(&lanes->turn->batches, outcome, &is_new);
    if (batch == NULL || !is_new)
        return batch != NULL;
    if (!watch(lanes, outcome)) {
        remove_batch(&lanes->turn->batches, batch);
        return false;
    }
    Py_INCREF(outcome); /* until `forget_batch` */
    return true;
}

void forget_batch(struct turn *turn, struct batch *batch) {
    PyObject *outcome = batch->outcome;
    remove_batch(&turn->batches, batch);
    Py_DECREF(outcome);
}

#endif
