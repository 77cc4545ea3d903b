"""``metaq produce``: the messages from lines and files, their order, and the output."""

from __future__ import annotations

import errno
import os

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.cli import console, produce
from metamorphosis.client.model import Partition
from metamorphosis.errors import CommitUnknown, NotConnected, TransactionFailed
from tests.unit.cli.fakes import Run


class LineTests(SynchronousTestCase):
    """Lines of the input."""

    def test_each_line_is_a_message(self) -> None:
        """Line ends are not part of it, empty lines are messages, the last needs no end."""
        run = Run("produce t", b"a\nb", b"c\n\n", b"d\r\n\xff\n", b"e").start()
        self.assertEqual(run.status, 0)
        self.assertEqual(run.session.producer.bodies, [b"a", b"bc", b"", b"d\r", b"\xff", b"e"])
        self.assertEqual((run.said, run.text), ("", ""))

    def test_nothing(self) -> None:
        """An empty input succeeds."""
        run = Run("produce t").start()
        self.assertEqual((run.status, run.session.producer.sent), (0, []))

    def test_attribute_and_partition(self) -> None:
        """Every message has them."""
        run = Run("produce t --attribute a --partition 0-1", b"1\n2\n").start()
        self.assertEqual(run.status, 0)
        self.assertEqual(
            run.session.producer.sent,
            [("t", b"1", "a", Partition(0, 1)), ("t", b"2", "a", Partition(0, 1))],
        )

    def test_key(self) -> None:
        """Every message has it, or each the one on its line."""
        run = Run("produce t --key k", b"1\n2\n").start()
        self.assertEqual((run.status, run.session.producer.keys), (0, ["k", "k"]))
        run = Run("produce t --key-separator ::", b"a::1\n::2\n\xff::3::4\n").start()
        self.assertEqual((run.status, run.session.producer.keys), (0, [b"a", b"", b"\xff"]))
        self.assertEqual(run.session.producer.bodies, [b"1", b"2", b"3::4"])

    def test_line_without_a_key(self) -> None:
        """It ends the command; earlier lines are sent."""
        run = Run("produce t --key-separator ::", b"a::1\nno key\nb::3\n").start()
        self.assertEqual((run.status, run.session.producer.bodies), (1, [b"1"]))
        said = "metaq: line 2 not sent, 1 sent: there is no '::' after a key\n"
        self.assertEqual(run.said, said)

    def test_order(self) -> None:
        """The producer keeps the order, unless ``--unordered`` is given."""
        for arguments, ordered in (("produce t", True), ("produce t --unordered", False)):
            run = Run(arguments).start()
            self.assertEqual(run.session.producer.options, {"topic": "t", "in_order": ordered})

    def test_long_line(self) -> None:
        """A line longer than any broker accepts is an error, and is not collected."""
        self.patch(console, "LONGEST_LINE", 10)
        run = Run("produce t", b"short\n", b"longer", b"longer").start()
        self.assertEqual(run.status, 2)
        self.assertIn("longer than 10 bytes", run.said)

    def test_input_fails(self) -> None:
        """An input that cannot be read is an error."""
        run = Run("produce t", b"a\n", OSError(errno.EIO, "bad disk")).start()
        self.assertEqual(run.status, 1)
        self.assertIn("bad disk", run.said)


class UnreachableTests(SynchronousTestCase):
    """Brokers in ZooKeeper that do not answer, as after a kill."""

    def start(self, arguments: str, *away: int) -> Run:
        """Two brokers have topic ``t``."""
        run = Run(arguments, b"x\n")
        for broker_id in (0, 1):
            run.session.master(broker_id, t=1).away = broker_id in away
        return run.start()

    def test_all(self) -> None:
        """No message is sent, and the error comes at once."""
        run = self.start("produce t", 0, 1)
        self.assertEqual((run.status, run.session.producer.sent), (1, []))
        refused = "no connection: Connection refused"
        self.assertEqual(
            run.said, f"metaq: broker meta://b:1: {refused}; broker meta://b:2: {refused}\n"
        )

    def test_one(self) -> None:
        """The other broker takes the messages, unless a partition is given."""
        self.assertEqual(self.start("produce t", 0).status, 0)
        self.assertEqual(self.start("produce t --partition 1-0", 0).status, 0)
        run = self.start("produce t --partition 0-0", 0)
        self.assertEqual((run.status, run.session.producer.sent), (1, []))
        self.assertIn("broker meta://b:1: no connection: Connection refused", run.said)


class PartitionTests(SynchronousTestCase):
    """``--partition``."""

    def test_number_alone(self) -> None:
        """A number is enough where one broker has it."""
        run = Run("produce t --partition 1", b"x\n").start()
        self.assertEqual(run.session.producer.sent[0][3], Partition(0, 1))

    def test_direct(self) -> None:
        """Without ZooKeeper the partition is not checked."""
        run = Run("produce t --partition 7", b"x\n", direct=True).start()
        self.assertEqual(run.session.producer.sent[0][3], Partition(0, 7))

    def test_wrong(self) -> None:
        """An unknown, ambiguous or invalid partition is an error with the valid ones."""
        for text, fault in (
            ("0-7", "does not exist; partitions of t: 0-0, 0-1, 1-0"),
            ("0", "is on several brokers; partitions of t: 0-0, 0-1, 1-0"),
            ("x", "<brokerId>-<number> expected"),
            ("a-1", "<brokerId>-<number> expected"),
        ):
            run = Run(f"produce t --partition {text}", b"x\n").start()
            self.assertEqual((run.status, run.session.producer.sent), (2, []))
            self.assertIn(fault, run.said)


class FileTests(SynchronousTestCase):
    """``--file``."""

    def test_whole_file(self) -> None:
        """It is one message, lines or not."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"a\nb\n\x00")
        run = Run(f"produce t --file {path}", b"input\n").start()
        self.assertEqual((run.status, run.session.producer.bodies), (0, [b"a\nb\n\x00"]))

    def test_missing(self) -> None:
        """The error names a missing file."""
        run = Run("produce t --file /nowhere/x").start()
        self.assertEqual(run.status, 2)
        self.assertEqual(run.said, f"metaq: --file /nowhere/x: {os.strerror(errno.ENOENT)}\n")


class FlowTests(SynchronousTestCase):
    """The number of pending sends, and the rate."""

    def test_bounded(self) -> None:
        """The number of pending sends is limited; the next one begins when one has ended."""
        self.patch(produce, "IN_FLIGHT", 3)
        run = Run("produce t", b"1\n2\n3\n4\n5\n")
        producer = run.session.producer
        producer.auto = False
        run.start()
        self.assertEqual(producer.bodies, [b"1", b"2", b"3"])
        producer.answer()
        run.runtime.turn()
        self.assertEqual(producer.bodies, [b"1", b"2", b"3", b"4"])
        for _ in range(4):
            producer.answer()
            run.runtime.turn()
        self.assertEqual(run.status, 0)

    def test_bounded_in_bytes(self) -> None:
        """The bytes of pending sends are limited."""
        self.patch(produce, "BYTES_IN_FLIGHT", 8)
        run = Run("produce t", b"12345\n12345\n1\n")
        run.session.producer.auto = False
        run.start()
        self.assertEqual(len(run.session.producer.sent), 2)

    def test_rate(self) -> None:
        """Messages are spread over the time."""
        run = Run("produce t --rate 10", b"1\n2\n3\n").start()
        sent = []
        for _ in range(3):
            sent.append(len(run.session.producer.sent))
            run.runtime.advance(0.1)
        self.assertEqual(sent, [1, 2, 3])
        self.assertEqual(run.status, 0)

    def test_ends_when_everything_is_answered(self) -> None:
        """The command ends after the last reply."""
        run = Run("produce t", b"1\n")
        run.session.producer.auto = False
        run.start()
        self.assertFalse(run.session.closed)
        run.session.producer.answer()
        self.assertEqual(run.status, 0)


class FailureTests(SynchronousTestCase):
    """Messages that could not be sent."""

    def test_no_line_behind_a_failure(self) -> None:
        """The error names the line and the number of sent ones; later lines are not sent."""
        run = Run("produce t", b"1\n2\n3\n", b"4\n")
        run.session.producer.fail_at[2] = NotConnected("broker b is away")
        run.start()
        self.assertEqual(run.status, 1)
        self.assertEqual(run.said, "metaq: line 2 not sent, 1 sent: broker b is away\n")
        self.assertEqual(run.session.producer.bodies, [b"1", b"2"])

    def test_what_was_under_way_is_waited_for(self) -> None:
        """Pending messages may still succeed or fail; both are counted."""
        run = Run("produce t", b"1\n2\n3\n4\n")
        producer = run.session.producer
        producer.auto = False
        run.start()
        producer.answer(NotConnected("away"))
        producer.answer()
        producer.answer(NotConnected("away, too"))
        self.assertFalse(run.session.closed)
        producer.answer()
        self.assertEqual(run.status, 1)
        self.assertEqual(run.said, "metaq: line 1 and 1 more not sent, 2 sent: away\n")

    def test_a_failure_ends_the_wait_for_input(self) -> None:
        """After a failure the command does not wait for a terminal."""
        run = Run("produce t", b"1\n", b"2\n")
        run.session.producer.auto = False
        run.start()
        run.runtime.pools[0].hold()
        run.session.producer.answer(NotConnected("away"))
        run.session.producer.answer()
        self.assertEqual(run.status, 1)

    def test_file(self) -> None:
        """The error names a file instead of a line."""
        path = self.mktemp()
        with open(path, "wb"):
            pass
        run = Run(f"produce t --file {path}")
        run.session.producer.fail_at[1] = NotConnected("away")
        run.start()
        self.assertEqual(run.said, f"metaq: {path} not sent, 0 sent: away\n")


class TransactionTests(SynchronousTestCase):
    """``--transaction``."""

    def test_every_n_lines(self) -> None:
        """A commit after every N lines, and at the end of the input."""
        run = Run("produce t --transaction 2", b"1\n2\n3\n", b"4\n5\n").start()
        self.assertEqual(run.status, 0)
        self.assertEqual(
            run.session.producer.ends,
            [("commit", [b"1", b"2"]), ("commit", [b"3", b"4"]), ("commit", [b"5"])],
        )

    def test_nothing_left(self) -> None:
        """An input that ends with a transaction begins no other; an empty one begins none."""
        run = Run("produce t --transaction 2", b"1\n2\n").start()
        self.assertEqual(run.session.producer.ends, [("commit", [b"1", b"2"])])
        self.assertEqual(Run("produce t --transaction 2").start().session.producer.ends, [])

    def test_failed_line(self) -> None:
        """Its transaction is rolled back; the number of committed lines is shown."""
        run = Run("produce t --transaction 3", b"1\n2\n3\n4\n5\n6\n7\n")
        run.session.producer.fail_at[5] = NotConnected("broker b is away")
        run.start()
        self.assertEqual(run.status, 1)
        self.assertEqual(run.said, "metaq: lines 4 to 5 not stored, 3 stored: broker b is away\n")
        self.assertEqual(run.session.producer.ends[1:], [("rollback", [b"4", b"5"])])

    def test_failed_commit(self) -> None:
        """The same; later lines are not sent."""
        run = Run("produce t --transaction 2", b"1\n2\n3\n4\n5\n6\n")
        run.session.producer.commit_errors[2] = TransactionFailed("disk full")
        run.start()
        self.assertEqual(run.status, 1)
        self.assertEqual(run.said, "metaq: lines 3 to 4 not stored, 2 stored: disk full\n")
        self.assertEqual(run.session.producer.bodies, [b"1", b"2", b"3", b"4"])

    def test_failed_last_commit(self) -> None:
        """The same for the last commit."""
        run = Run("produce t --transaction 2", b"1\n2\n3\n")
        run.session.producer.commit_errors[2] = TransactionFailed("disk full")
        run.start()
        self.assertEqual(run.status, 1)
        self.assertEqual(run.said, "metaq: lines 3 to 3 not stored, 2 stored: disk full\n")

    def test_commit_without_answer(self) -> None:
        """The outcome is unknown, and the error says so."""
        run = Run("produce t --transaction 2", b"1\n2\n")
        run.session.producer.commit_errors[1] = CommitUnknown("no answer in time")
        run.start()
        self.assertEqual(run.status, 1)
        self.assertEqual(
            run.said, "metaq: lines 1 to 2 may be stored or not, 0 stored: no answer in time\n"
        )

    def test_interrupted(self) -> None:
        """An incomplete transaction is rolled back."""
        run = Run("produce t --transaction 2 --rate 1", b"1\n2\n3\n4\n").start()
        run.runtime.advance(2)
        run.console.stop()
        run.runtime.turn()
        self.assertEqual(run.status, 130)
        self.assertEqual(run.said, "metaq: interrupted; 2 sent\n")
        self.assertEqual(run.session.producer.ends[1:], [("rollback", [b"3"])])

    def test_direct(self) -> None:
        """Without ZooKeeper the partition has to be named."""
        run = Run("produce t --transaction 2", b"1\n", direct=True).start()
        self.assertEqual(run.status, 2)
        self.assertIn("--transaction with --broker needs --partition", run.said)
        run = Run("produce t --transaction 2 --partition 0", b"1\n", direct=True).start()
        self.assertEqual(run.session.producer.ends, [("commit", [b"1"])])


class EndTests(SynchronousTestCase):
    """Ctrl-C, and the progress."""

    def test_interrupted(self) -> None:
        """Pending sends are finished, no other begins, and the status shows the interruption."""
        run = Run("produce t --rate 1", b"1\n2\n3\n")
        run.session.producer.auto = False
        run.start()
        run.console.stop()
        run.runtime.turn()
        self.assertFalse(run.session.closed)
        run.session.producer.answer()
        self.assertEqual(run.status, 130)
        self.assertEqual(run.said, "metaq: interrupted; 1 sent\n")

    def test_progress(self) -> None:
        """Progress overwrites its line on a terminal, and the last line stays."""
        run = Run("produce t --rate 1", b"1\n2\n", interactive=True).start()
        run.runtime.advance(1.5)
        self.assertEqual(run.status, 0)
        self.assertIn("\r1 message, 0.0 MB", run.said)
        self.assertTrue(run.said.endswith("\n"))
        self.assertIn("2 messages, 0.0 MB", run.said.splitlines()[-1])
        self.assertEqual(run.runtime.clock.getDelayedCalls(), [])
