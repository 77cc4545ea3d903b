"""
The alarms of replication: one line of the log each, with fixed first words for whoever watches it.

What to do about each stands in ``docs/log-lines.md`` and ``docs/operations.md``.
"""

from __future__ import annotations

from twisted.logger import Logger

from metamorphosis.replication.logs import LogEnds

_log = Logger()


def gap(partition: str, own_end: int, first: int, aside: str | None) -> None:
    """
    The master has deleted what the slave needs next.

    :param partition: ``<topic>-<partition>``.
    :param own_end: where the slave's log ends.
    :param first: the master's lowest offset, where copying goes on.
    :param aside: where the old directory is now; None if there was nothing in it.
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
    Two logs that should be the same are not.

    :param partition: ``<topic>-<partition>``.
    :param own: range of the log here.
    :param other: range of the log of the other broker; None if it shows none.
    :param reason: what is different.
    :param remedy: what is done now, and what an operator can do.
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
    :param seconds: after which it is read again.
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
    Puts cannot be acknowledged any more.

    :param slave: URL of the pair slave.
    """
    _log.error("Pair broken: {slave}: {reason}", slave=slave, reason=reason)


def pair_joined(slave: str, partitions: int, sent: int, fetched: int, diverged: int) -> None:
    """
    Both logs are the same, and puts are taken again.

    :param slave: URL of the pair slave.
    :param partitions: how many are the same.
    :param sent: bytes that the slave lacked.
    :param fetched: bytes that the master lacked.
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
