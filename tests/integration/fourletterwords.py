"""
Records what a real ZooKeeper answers to the four-letter words, for ``tests.unit.zookeeper``::

    python -m tests.integration.fourletterwords PORT > tests/unit/zookeeper/words_3_4_14.json

The server is a fresh one that nobody else uses, with ``4lw.commands.whitelist=*`` and
``maxClientCnxns=60``. The recorded one was ``org.apache.zookeeper:zookeeper:3.4.14`` of Maven
Central, standalone.
"""

from __future__ import annotations

import json
import re
import socket
import sys

from tests.support.rawzookeeper import SECONDS, RawClient
from tests.unit.zookeeper.wordsteps import STEPS, TIMEOUT, WORDS, shape


def ask(port: int, word: str) -> str:
    """The answer to a word; an orderly end, not a reset, follows it."""
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        connection.sendall(word.encode())
        answer = b""
        while data := connection.recv(1 << 16):
            answer += data
    return answer.decode()


def record(port: int) -> dict[str, list[list[str]]]:
    """Every answer as ``(name, shape)``: ``cons`` after each step, then all words."""
    client = RawClient(port, TIMEOUT)
    number = client.connect().id
    steps = [["handshake", shape(ask(port, "cons"), number)]]
    for name, operation, body, xid in STEPS:
        client.send(operation, body, xid)
        client.receive_reply()
        steps.append([name, shape(ask(port, "cons"), number)])
    words = [[word, shape(ask(port, word), number)] for word in WORDS]
    for pair in words:
        if pair[0] == "envi":  # names only: the values are about a machine
            pair[1] = re.sub("=.*", "=", pair[1])
    return {"steps": steps, "words": words}


if __name__ == "__main__":
    json.dump(record(int(sys.argv[1])), sys.stdout, indent=1)
    print()
