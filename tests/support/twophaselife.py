"""
One life of an application that moves rows and messages in one transaction: a process that the tests
kill at a step of their choice.

``python -m tests.support.twophaselife BROKER DATABASE_PORT DATABASE FILE VALUE [STEP [COUNT]]``

It resolves what is left, commits one transaction with the row and the message VALUE, and prints
``committed``. With STEP it is killed (SIGKILL) when this step has been done for the COUNT-th time.
"""

from __future__ import annotations

import os
import signal
import sys

import pymysql

from metamorphosis.client.blocking import MessageSessionFactory
from metamorphosis.client.model import Partition
from metamorphosis.client.transactions.coordinator import Coordinator, Step

TOPIC = "test"
PARTITION = Partition(0, 0)
QUALIFIER = "two-phase-tests"


def main(
    broker: str,
    port: str,
    database: str,
    path: str,
    value: str,
    step: str | None = None,
    count: str = "1",
) -> None:
    """See the module."""
    done = 0

    def reached(current: Step, transaction: str) -> None:
        nonlocal done
        done += current.name == step
        if current.name == step and done == int(count):
            os.kill(os.getpid(), signal.SIGKILL)

    def connect() -> pymysql.connections.Connection[pymysql.cursors.Cursor]:
        return pymysql.connect(host="127.0.0.1", port=int(port), user="root", database=database)

    with MessageSessionFactory(broker=broker) as factory:
        producer = factory.create_xa_producer(TOPIC, unique_qualifier=QUALIFIER)
        with Coordinator(path, producer, connect, on_step=reached) as coordinator:
            if value == "-":
                print(coordinator.resolve().left or "nothing left")
                return
            with coordinator.transaction() as transaction:
                with transaction.connection.cursor() as cursor:
                    cursor.execute("INSERT INTO work VALUES (%s)", (value,))
                transaction.send(TOPIC, value.encode(), partition=PARTITION)
    print("committed")


if __name__ == "__main__":
    main(*sys.argv[1:])
