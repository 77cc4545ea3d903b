"""
Single ephemeral nodes of this broker, or of a consumer: made, corrected and removed, and those of
others left alone.

The session that owns a node tells whose it is:

* the present one: ours;
* a former session of this broker: ours as well, and taken over by delete and create. A former
  session is one this process had, or one that owned the broker node (``master``, ``slave<n>``) with
  our own URL as data: that of our last run. So a quick restart is not refused because the old
  session has not expired yet. Topic nodes carry no host, hence the detour;
* any other: another broker with our id. Session 0: a persistent node was made by hand. Never
  touched.

Between the look at a node of a former session and its deletion lies one round trip; ZooKeeper can
delete no node on condition of its owner.
"""

from __future__ import annotations

from twisted.logger import Logger

from metamorphosis.cluster.model import NodeStat
from metamorphosis.errors import NodeExists, NoNode, RegistryError, RegistryUnavailable
from metamorphosis.interfaces import IRegistry
from metamorphosis.wire.numbers import shown

CLAIM_TRIES = 5  # create, found, gone again: another client changes the node at the same time


class Occupied(RegistryError):
    """The node belongs to another session."""

    def __init__(self, path: str, data: bytes | None, owner: int) -> None:
        what = (data or b"").decode("utf-8", "replace")
        who = f"session {owner:#x}" if owner else "no session, as if made by hand"
        super().__init__(f"{path} holds {shown(what)} and belongs to {who}")
        self.path = path


class OwnNodes:
    """
    Operations on nodes with a look at their owner.

    Thread: reactor.

    :param broker_path: the node whose data say whose session it is; a consumer has none.
    :param url: our own, as the data of that node.
    """

    _log = Logger()

    def __init__(self, registry: IRegistry, broker_path: str = "", url: bytes = b"") -> None:
        self._registry = registry
        self._broker_path = broker_path
        self._url = url
        self._sessions: set[int] = set()

    def remember(self, session: int) -> None:
        """A session of this process began."""
        self._sessions.add(session)

    async def claim(
        self, path: str, data: bytes, in_place: bool = False, look_first: bool = False
    ) -> None:
        """
        Make the ephemeral node ours and its data right.

        :param in_place: whether wrong data are overwritten; else the node is deleted and created,
            which is what the clients that watch its parent notice.
        :param look_first: whether it is probably right already: a look costs the servers less
            than a create that fails, which all of them write to their logs.
        :raises Occupied: it is another broker's.
        """
        for attempt in range(CLAIM_TRIES):
            try:
                if attempt or not look_first:
                    await self._registry.create(path, data, True)
                    return
            except NodeExists:
                pass  # or a create whose answer was lost: look
            try:
                found, stat = await self._registry.get(path)
                ours = stat.owner == self._registry.session_id()
                if ours and found == data:
                    return
                if ours and in_place:
                    await self._registry.set_data(path, data)
                    return
                self._check_owner(path, found, stat)
                await self._registry.delete(path)
            except NoNode:
                pass  # it went away meanwhile: create it
        raise RegistryError(f"{path} is created and deleted by another client all the time")

    async def remove(self, path: str) -> bool:
        """
        See to it that no node of ours is there, whichever of our sessions made it.

        :returns: whether one was.
        :raises Occupied: it is another broker's.
        """
        try:
            found, stat = await self._registry.get(path)
            self._check_owner(path, found, stat)
            await self._registry.delete(path)
        except NoNode:
            return False
        return True

    async def release(self, path: str) -> None:
        """
        Delete the node if this session owns it. What fails is left to the end of the session.

        :raises RegistryUnavailable: the rest would fail as well.
        """
        try:
            _, stat = await self._registry.get(path)
            if stat.owner == self._registry.session_id():
                await self._registry.delete(path)
        except NoNode:
            pass
        except RegistryUnavailable:
            raise
        except RegistryError as error:
            self._log.warn("cannot delete {path}: {error}", path=path, error=error)

    def _check_owner(self, path: str, data: bytes | None, stat: NodeStat) -> None:
        """:raises Occupied: the node is of no session of this broker."""
        if stat.owner in self._sessions:
            return
        if path != self._broker_path or data != self._url:
            raise Occupied(path, data, stat.owner)
        self._log.info(
            "{path} belongs to the session {owner:#x} of our last run: taking it over",
            path=path,
            owner=stat.owner,
        )
        if stat.owner:
            self._sessions.add(stat.owner)
