"""kazoo's side of the bridge: connect strings, errors, log."""

from __future__ import annotations

import logging
import socket
import threading

from kazoo.exceptions import BadArgumentsError, ConnectionLoss, NoNodeError, SessionExpiredError
from kazoo.handlers.threading import SequentialThreadingHandler
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.cluster.kazoobridge import (
    KazooThreads,
    kazoo_logger,
    split_connect,
    translated,
)
from metamorphosis.cluster.model import ConnectionFault
from metamorphosis.errors import ConfigError, NoNode, RegistryError, RegistryUnavailable


class ConnectStringTests(SynchronousTestCase):
    """zk.zkConnect."""

    def test_hosts_and_chroot(self) -> None:
        """Hosts may have IPv6 literals and no port; the chroot ends without a slash."""
        self.assertEqual(split_connect("h1:2181,h2"), ("h1:2181,h2", ""))
        self.assertEqual(split_connect(" h1:2181/a/b/ "), ("h1:2181", "/a/b"))
        self.assertEqual(split_connect("[::1]:2181/"), ("[::1]:2181", ""))

    def test_faults_name_key_value_and_form(self) -> None:
        """What cannot be understood is told with the key and what would be right."""
        for text in ("", "h1:port", "/chroot", "h1:99999", "h1:1,,h2:2"):
            error = str(self.assertRaises(ConfigError, split_connect, text))
            self.assertIn(f"zk.zkConnect={text!r}", error)
            self.assertIn("host:port", error)


class ErrorTests(SynchronousTestCase):
    """Errors of kazoo as ours."""

    def test_translation(self) -> None:
        """Outcome unknown, refused, and everything else."""
        for theirs, ours in (
            (NoNodeError(), NoNode),
            (ConnectionLoss(), RegistryUnavailable),
            (SessionExpiredError(), RegistryUnavailable),
            (BadArgumentsError(), RegistryError),
            (ValueError("relative paths"), RegistryError),
        ):
            error = translated(theirs, "/a")
            self.assertIs(type(error), ours)
            self.assertIn("/a", str(error))


class LogTests(SynchronousTestCase):
    """kazoo warns once a second while ZooKeeper is away."""

    def test_warnings_are_kept_and_not_repeated(self) -> None:
        """A warning becomes the reason for our own line, an error is handed on, nothing else is."""
        reports: list[str] = []
        threads = KazooThreads(lambda: None)
        logger = kazoo_logger(threads, reports.append)
        logger.warning("Connection dropped: %s", "refused")
        logger.info("Connecting")
        self.assertEqual((threads.complaint, reports), ("Connection dropped: refused", []))
        logger.error("Unhandled")
        self.assertEqual(reports, ["Unhandled"])

    def test_logger_is_no_part_of_the_tree(self) -> None:
        """Nothing reaches handlers of the process."""
        logger = kazoo_logger(KazooThreads(lambda: None), lambda text: None)
        self.assertIsNone(logger.parent)
        self.assertIsNot(logging.Logger.manager.loggerDict.get(logger.name), logger)


class ThreadTests(SynchronousTestCase):
    """kazoo's threads; real ones, they are the subject."""

    def test_end_of_a_thread_is_reported(self) -> None:
        """Whether it returns or raises, and the reason is kept."""
        ended = threading.Semaphore(0)
        threads = KazooThreads(ended.release)
        threads.spawn(lambda: None).join()
        threads.spawn(lambda: {}["missing"]).join()
        self.assertTrue(ended.acquire(timeout=30) and ended.acquire(timeout=30))
        self.assertIn("KeyError", threads.complaint)

    def test_refused_by_all(self) -> None:
        """Only when every server refuses, or has no address, is it of no use to wait."""
        threads = KazooThreads(lambda: None)
        logger = kazoo_logger(threads, lambda text: None)
        self.assertEqual(threads.fault, ConnectionFault("no answer"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            threads.create_connection(address).close()
            self.assertFalse(threads.fault.refused)
        self.assertRaises(OSError, threads.create_connection, address)
        self.assertEqual(threads.fault, ConnectionFault("Connection refused", True))
        error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        logger.warning("Cannot resolve %s: %s", "nowhere", error)
        self.assertEqual(threads.fault, ConnectionFault("Name or service not known", True))

    def test_connection_is_counted_and_cut(self) -> None:
        """abort ends what waits on the socket and allows no further connection."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            threads = KazooThreads(lambda: None)
            connection = threads.create_connection(listener.getsockname(), timeout=60)
            self.addCleanup(connection.close)
            self.assertEqual(threads.accepted, 1)
            threads.abort()
            self.assertEqual(connection.recv(1), b"")
            self.assertRaises(OSError, threads.create_connection, listener.getsockname())
            threads.abort()

    def test_first_answer_has_a_limit_of_its_own(self) -> None:
        """
        A server that accepts and says nothing is left soon; after its first answer, and for other
        sockets, kazoo's own limits hold.
        """
        asked: list[float | None] = []
        answer: list[list[socket.socket]] = [[], [], []]

        def select(*args: object) -> tuple[list[socket.socket], ...]:
            timeout = args[-1]
            assert timeout is None or isinstance(timeout, float)
            asked.append(timeout)
            return tuple(answer)

        with socket.create_server(("127.0.0.1", 0)) as listener:
            threads = KazooThreads(lambda: None, answer_seconds=7.0)
            connection = threads.create_connection(listener.getsockname())
            self.addCleanup(connection.close)
        self.patch(SequentialThreadingHandler, "select", staticmethod(select))
        threads.select([], [connection], [], 60.0)
        threads.select([connection, listener], [], [], 60.0)
        threads.select([connection], [], [], None)
        threads.select([connection], [], [], 3.0)
        self.assertEqual(asked, [60.0, 60.0, 7.0, 3.0])
        answer[0] = [connection]
        self.assertEqual(threads.select([connection], [], [], 60.0)[0], [connection])
        threads.select([connection], [], [], 60.0)
        self.assertEqual(asked[4:], [7.0, 60.0])
