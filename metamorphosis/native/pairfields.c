/* The types of Python with the fields of a pair's objects; twins: replication/pairmaster/fields.py. */
#include "pairfields.h"

#include "fieldtypes.h"

static PyMemberDef flight_members[] = {
    OBJECT(flight, "sender", FLIGHT_SENDER),
    OBJECT(flight, "batch", FLIGHT_BATCH),
    OBJECT(flight, "early", FLIGHT_EARLY),
    OBJECT(flight, "run", FLIGHT_RUN),
    OBJECT(flight, "_sizes", FLIGHT_SIZES),
    FIELD(flight, "number", T_LONGLONG, number),
    FIELD(flight, "count", T_LONGLONG, count),
    FIELD(flight, "done", T_LONGLONG, done),
    FIELD(flight, "at", T_LONGLONG, at),
    FIELD(flight, "offset", T_LONGLONG, offset),
    FIELD(flight, "deadline", T_DOUBLE, deadline),
    FIELD(flight, "is_late", T_BOOL, is_late),
    END,
};
WITH_OBJECTS(flight)
SLOTS_WITH_OBJECTS(flight);
SPECIFICATION(flight, "FlightFields", Py_TPFLAGS_HAVE_GC);

static PyMemberDef paired_members[] = {
    OBJECT(paired, "standing", PAIRED_STANDING),
    OBJECT(paired, "appender", PAIRED_APPENDER),
    OBJECT(paired, "flights", PAIRED_FLIGHTS),
    OBJECT(paired, "head", PAIRED_HEAD),
    FIELD(paired, "next_offset", T_LONGLONG, next_offset),
    END,
};
WITH_OBJECTS(paired)
SLOTS_WITH_OBJECTS(paired);
SPECIFICATION(paired, "PairedLogFields", Py_TPFLAGS_HAVE_GC);

static PyMemberDef pair_appender_members[] = {
    OBJECT(pair_appender, "_log", PAIR_LOG),
    OBJECT(pair_appender, "_store", PAIR_STORE),
    OBJECT(pair_appender, "_syncs", PAIR_SYNCS),
    OBJECT(pair_appender, "_joined", PAIR_JOINED),
    OBJECT(pair_appender, "_stored", PAIR_STORED),
    OBJECT(pair_appender, "_make_batch", PAIR_MAKE_BATCH),
    OBJECT(pair_appender, "_flight_type", PAIR_FLIGHT_TYPE),
    FIELD(pair_appender, "_opaques", T_LONGLONG, opaques),
    END,
};
WITH_OBJECTS(pair_appender)
SLOTS_WITH_OBJECTS(pair_appender);
SPECIFICATION(pair_appender, "PairAppenderFields", Py_TPFLAGS_HAVE_GC);

static PyMemberDef syncs_members[] = {
    OBJECT(syncs, "_flights", SYNCS_FLIGHTS),
    OBJECT(syncs, "now", SYNCS_NOW),
    FIELD(syncs, "waiting", T_LONGLONG, waiting),
    FIELD(syncs, "limit", T_LONGLONG, limit),
    FIELD(syncs, "failures", T_LONGLONG, failures),
    FIELD(syncs, "_number", T_LONGLONG, number),
    FIELD(syncs, "_record_bytes", T_LONGLONG, record_bytes),
    FIELD(syncs, "timeout", T_DOUBLE, timeout),
    FIELD(syncs, "_due", T_DOUBLE, due),
    FIELD(syncs, "is_connected", T_BOOL, is_connected),
    FIELD(syncs, "is_planned", T_BOOL, is_planned),
    FIELD(syncs, "is_heard", T_BOOL, is_heard),
    END,
};
WITH_OBJECTS(syncs)
SLOTS_WITH_OBJECTS(syncs);
SPECIFICATION(syncs, "SyncsFields", Py_TPFLAGS_HAVE_GC);

static PyMemberDef under_way_members[] = {
    OBJECT(under_way, "_flights", UNDER_WAY_FLIGHTS),
    FIELD(under_way, "_first", T_LONGLONG, first),
    FIELD(under_way, "_many", T_LONGLONG, many),
    END,
};
WITH_OBJECTS(under_way)
SLOTS_WITH_OBJECTS(under_way);
SPECIFICATION(under_way, "UnderWayFields", Py_TPFLAGS_HAVE_GC);

static const char *const names[PAIR_TYPES] = {"FlightFields", "PairedLogFields", "PairAppenderFields", "SyncsFields",
                                              "UnderWayFields"};

int pairfields_add(PyObject *module) {
    PyType_Spec *specs[PAIR_TYPES] = {&flight_spec, &paired_spec, &pair_appender_spec, &syncs_spec, &under_way_spec};
    return add_types(module, specs, names, PAIR_TYPES);
}

bool get_pair_types(PyObject *module, PyObject *types[PAIR_TYPES]) {
    return get_types(module, types, names, PAIR_TYPES);
}
