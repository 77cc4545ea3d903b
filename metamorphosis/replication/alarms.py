"""
The alarms of replication: one log line each, with fixed first words for monitoring.

``docs/log-lines.md`` and ``docs/operations.md`` have the remedy for each.
"""

from __future__ import annotations

from twisted.logger import Logger

from metamorphosis.replication.logs import LogEnds

_log = Logger()


def gap(partition: str, own_end: int, first: int, aside: str | None) -> None:
    """
    The master has deleted the bytes that the slave needs next.

    :param partition: ``<topic>-<partition>``.
    :param own_end: the end of the slave's log.
    :param first: the master's lowest offset, at which copying continues.
    :param aside: the present path of the old directory; None if it was empty.
    """
    _log.error(
        "Replication gap: {partition} ends at {end}, and the log of the master begins at {first}."
        " Copying begins anew at {first}; the old directory: {aside}",
        partition=partition,
        end=own_end,
        first=first,
        aside=aside or "it was empty",
    )


def diverged(partition: str, own: LogEnds, other: LogEnds | None, reason: str, remedy: str) -> None:
    """
    Two logs that should be equal are not.

    :param partition: ``<topic>-<partition>``.
    :param own: range of the log here.
    :param other: range of the other broker's log; None if it shows none.
    :param reason: the difference.
    :param remedy: the present reaction, and the operator's remedy.
    """
    _log.error(
        "Replication diverged: {partition} is {own} here and {other} on the other broker:"
        " {reason}. {remedy}",
        partition=partition,
        own=own,
        other=other or "absent",
        reason=reason,
        remedy=remedy,
    )


def damaged(partition: str, offset: int, reason: str, seconds: float) -> None:
    """
    The record that the slave needs next is damaged on the master.

    :param partition: ``<topic>-<partition>``.
    :param seconds: the time until it is read again.
    """
    _log.error(
        "Replication damaged: {partition} stands at {offset}, because {reason} on the master; it is"
        " read again every {seconds} s and never passed over",
        partition=partition,
        offset=offset,
        reason=reason,
        seconds=seconds,
    )


def pair_broken(slave: str, reason: str) -> None:
    """
    Puts can no longer be acknowledged.

    :param slave: URL of the pair slave.
    """
    _log.error("Pair broken: {slave}: {reason}", slave=slave, reason=reason)


def pair_joined(slave: str, partitions: int, sent: int, fetched: int, diverged: int) -> None:
    """
    The logs of both brokers are equal, and puts are accepted again.

    :param slave: URL of the pair slave.
    :param partitions: the number of equal partitions.
    :param sent: bytes that were missing on the slave.
    :param fetched: bytes that were missing on the master.
    :param diverged: partitions that could not be joined.
    """
    _log.warn(
        "Pair joined: {slave}: {partitions} partitions are the same, {sent} bytes were sent and"
        " {fetched} fetched; {diverged} partitions have diverged",
        slave=slave,
        partitions=partitions,
        sent=sent,
        fetched=fetched,
        diverged=diverged,
    )
