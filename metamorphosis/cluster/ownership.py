"""
Single ephemeral nodes of this broker, or of a consumer: they are made, corrected and removed, and
nodes of others are not touched.

The session that owns a node decides whose it is:

* the present one: ours;
* a former session of this broker: ours as well, and taken over by delete and create. A former
  session is one this process had, or one that owned the broker node (``master``, ``slave<n>``) with
  our own URL as data: that of our last run. So a quick restart is not refused because the old
  session has not expired yet. Topic nodes carry no host, hence the detour;
* any other: another broker with our id. Session 0: a persistent node was made by hand. Never
  touched.

Between the read of a node of a former session and its deletion is one round trip; ZooKeeper has no
delete on condition of the owner.
"""

from __future__ import annotations

from twisted.logger import Logger

from metamorphosis.cluster.model import NodeStat
from metamorphosis.errors import NodeExists, NoNode, RegistryError, RegistryUnavailable
from metamorphosis.interfaces import IRegistry
from metamorphosis.wire.numbers import shown

CLAIM_TRIES = 5  # a create may fail while another client changes the node at the same time


class Occupied(RegistryError):
    """The node belongs to another session."""

    def __init__(self, path: str, data: bytes | None, owner: int) -> None:
        what = (data or b"").decode("utf-8", "replace")
        who = f"session {owner:#x}" if owner else "no session, as if made by hand"
        super().__init__(f"{path} holds {shown(what)} and belongs to {who}")
        self.path = path


class OwnNodes:
    """
    Operations on nodes that check the owner first.

    Thread: reactor.

    :param broker_path: the node whose data name the broker of a session; a consumer has none.
    :param url: this broker's URL, as the data of that node.
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
        Create the ephemeral node, or take it over, with these data.

        :param in_place: whether wrong data are overwritten; otherwise the node is deleted and
            created, which the clients that watch its parent notice.
        :param look_first: whether the node is probably correct already: a read costs the servers
            less than a failed create, which all of them write to their logs.
        :raises Occupied: the node is another broker's.
        """
        for attempt in range(CLAIM_TRIES):
            try:
                if attempt or not look_first:
                    await self._registry.create(path, data, True)
                    return
            except NodeExists:
                pass  # or the answer to a create was lost: read the node
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
                pass  # it was deleted meanwhile: create it
        raise RegistryError(f"{path} is created and deleted by another client all the time")

    async def remove(self, path: str) -> bool:
        """
        Delete the node if one of our sessions, present or former, made it.

        :returns: whether there was one.
        :raises Occupied: the node is another broker's.
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
        Delete the node if this session owns it. A node that cannot be deleted goes with the
        session.

        :raises RegistryUnavailable: there is no connection, so other calls would fail too.
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
        """
        Check that a session of this broker owns the node.

        :raises Occupied: another session owns it.
        """
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
