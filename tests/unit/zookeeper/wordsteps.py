"""
What is done before and between the four-letter words whose answers are compared with those of a
real ZooKeeper: by ``tests.integration.fourletterwords``, which recorded them, and by
``test_words``.
"""

from __future__ import annotations

import re

from tests.support.rawzookeeper import (
    CHECK,
    CREATE,
    DELETE,
    EPHEMERAL,
    EXISTS,
    GET_ACL,
    GET_CHILDREN,
    GET_CHILDREN2,
    GET_DATA,
    MULTI,
    OPEN,
    PING,
    PING_XID,
    SET_ACL,
    SET_DATA,
    SET_WATCHES,
    SET_WATCHES_XID,
    SYNC,
    create,
    multi,
    set_acl,
    set_data,
    set_watches,
    text,
    versioned,
    watched,
)

TIMEOUT = 10000
"""Of the one session, milliseconds."""

STEPS: tuple[tuple[str, int, bytes, int | None], ...] = (
    ("create", CREATE, create("/w", b"x"), None),
    ("create of an ephemeral", CREATE, create("/w/e", b"", flags=EPHEMERAL), None),
    ("delete that fails", DELETE, versioned("/nope"), None),
    ("exists that fails", EXISTS, watched("/none", True), None),
    ("getData", GET_DATA, watched("/w", True), None),
    ("getData once more", GET_DATA, watched("/w/e", True), None),
    ("getACL", GET_ACL, text("/w"), None),
    ("setACL", SET_ACL, set_acl("/w", OPEN), None),
    ("getChildren", GET_CHILDREN, watched("/w", True), None),
    ("getChildren2", GET_CHILDREN2, watched("/w", True), None),
    ("sync", SYNC, text("/w"), None),
    ("multi", MULTI, multi([(CHECK, versioned("/w"))]), None),
    ("ping", PING, b"", PING_XID),
    ("setData, with an event", SET_DATA, set_data("/w", b"yz"), None),
    ("setWatches", SET_WATCHES, set_watches(9, ["/w"], [], []), SET_WATCHES_XID),
)
"""Name, operation, body and xid of each request; ``cons`` is asked after each."""

WORDS: tuple[str, ...] = (
    *("ruok", "isro", "conf", "envi", "srvr", "stat", "mntr", "cons", "dump"),
    *("wchs", "wchc", "wchp", "kill", "reqs", "hash", "wxyz", "GET ", "crst", "cons", "stat"),
    *("srst", "srvr", "mntr", "ruok"),
)
"""What is asked afterwards, in this order."""

_VOLATILE = (
    (r"\b3\.4\.\d+-.*", "VERSION"),
    (r"/127\.0\.0\.1:\d+", "/127.0.0.1:PORT"),
    (r"\b(est|lresp|llat|minlat|avglat|maxlat)=\d+(?=[,)])", r"\1=N"),
    (r"^(zk_(?:avg|max|min)_latency|zk_\w+_file_descriptor_count)\t\d+$", r"\1\tN"),
    (r"^(Latency min/avg/max): \d+/\d+/\d+$", r"\1: N/N/N"),
    (r"\bat \w{3} \w{3} \d\d \d\d:\d\d:\d\d \w+ \d{4}:$", "at DATE:"),
    (r"^0 expire at DATE:\n", ""),  # ZooKeeper leaves empty sets behind for a while
    (r"^Session Sets \(\d+\):$", "Session Sets (N):"),
    (r"^clientPort=\d+$", "clientPort=PORT"),
    (r"^(dataDir|dataLogDir)=.*$", r"\1=DIRECTORY"),
)


def shape(answer: str, session_id: int) -> str:
    """An answer without what is different each time; what has to be a number is still one."""
    answer = answer.replace(f"{session_id:#x}", "SESSION")
    for pattern, replacement in _VOLATILE:
        answer = re.sub(pattern, replacement, answer, flags=re.MULTILINE)
    return answer
