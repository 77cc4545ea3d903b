"""
Feeds one stream of bytes to the decoder in every possible chunking, after h11's ``tr``, and makes
test methods from tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.errors import RemoteProtocolError
from metamorphosis.wire.commands import Command
from metamorphosis.wire.decoding import CommandDecoder, FrameLimits, NeedMore, decode_frame

#: those of the tests; small enough to be reached
LIMITS = FrameLimits(max_line_bytes=4096, max_body_bytes=8192)


@dataclass
class Outcome:
    """The result of a stream."""

    commands: list[Command]
    #: whether the stream was refused at some point
    refused: bool = False
    #: bytes at the end that wait for more; of no meaning once refused
    waiting: int = 0


def decoded(chunks: Iterable[bytes], limits: FrameLimits = LIMITS) -> Outcome:
    """Give the chunks to a ``CommandDecoder``, one after the other."""
    decoder = CommandDecoder(limits.max_line_bytes, limits.max_body_bytes)
    outcome = Outcome([])
    for chunk in chunks:
        try:
            for command in decoder.receive(chunk):
                outcome.commands.append(command)
        except RemoteProtocolError:
            outcome.refused = True
    outcome.waiting = 0 if outcome.refused else decoder.pending
    return outcome


def decoded_in_place(data: Any, limits: FrameLimits = LIMITS) -> Outcome:
    """Walk through the bytes with ``decode_frame``, as the broker does."""
    position, end = 0, len(data)
    outcome = Outcome([])
    try:
        while not isinstance(found := decode_frame(data, position, end, limits), NeedMore):
            command, position = found
            outcome.commands.append(command)
    except RemoteProtocolError:
        outcome.refused = True
        return outcome
    outcome.waiting = end - position
    return outcome


def ways_to_cut(data: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, and at every position in two."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for i in range(1, len(data)):
        yield [data[:i], data[i:]]


def assert_outcome(test: SynchronousTestCase, data: bytes, expected: Outcome) -> None:
    """The stream ends as expected however it arrives and in whatever kind of buffer it lies."""
    for chunks in ways_to_cut(data):
        test.assertEqual(expected, decoded(chunks), chunks)
    for kind in (bytes, bytearray, memoryview):
        test.assertEqual(expected, decoded_in_place(kind(data)), kind)


def assert_frame(test: SynchronousTestCase, frame: bytes, command: Command) -> None:
    """
    The frame is this command, in every chunking, at any place of a buffer, and nothing around it is
    touched.
    """
    assert_outcome(test, frame, Outcome([command]))
    assert_outcome(test, frame + b"vers", Outcome([command], waiting=4))
    assert_outcome(test, frame + frame, Outcome([command, command]))
    buffer = bytearray(b"in front" + frame + b"quit\r\n")
    for end in range(8, 8 + len(frame)):
        found = decode_frame(buffer, 8, end, LIMITS)
        assert isinstance(found, NeedMore)
        test.assertIn(found.total, (None, len(frame)), (frame, end))
    test.assertEqual((command, 8 + len(frame)), decode_frame(buffer, 8, len(buffer), LIMITS))


def generated(
    prefix: str, docstring: str, table: Iterable[tuple[Any, ...]]
) -> Callable[[type], type]:
    """
    A class decorator: one test method for each row. The row's first field completes the name, the
    others are the arguments of the class's ``check``.

    :param docstring: of the methods; ``{}`` is replaced by the row's first field
    """

    def decorate(cls: type) -> type:
        for name, *arguments in table:

            def method(self: Any, arguments: list[Any] = arguments) -> None:
                self.check(*arguments)

            method.__name__ = f"test_{prefix}_{name}".replace(" ", "_").replace("-", "_")
            method.__qualname__ = f"{cls.__qualname__}.{method.__name__}"
            method.__doc__ = docstring.format(name)
            assert not hasattr(cls, method.__name__), method.__name__
            setattr(cls, method.__name__, method)
        return cls

    return decorate
