"""
The nodes that a broker should have, and those that its session is known to hold.

``register`` makes the nodes that the broker should have, ``withdraw`` deletes all of them; each
goes through the remaining nodes once and returns the faults. ``registration`` decides when they
run.

A node counts as held when its create, or a read of it, has succeeded in the present session. After
each session event every node is read again, because the server may have lost some.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from twisted.internet.defer import Deferred

from metamorphosis.cluster.model import Broker, TopicRegistration
from metamorphosis.cluster.nodes import BrokerNodes
from metamorphosis.cluster.ownership import Occupied, OwnNodes
from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import NoNode, NotEmpty, RegistryError, RegistryUnavailable
from metamorphosis.interfaces import IRegistry
from metamorphosis.parallel import in_parallel

AT_ONCE = 16
"""Topics registered, or nodes deleted, at the same time."""


class HeldNodes:
    """
    The nodes of one broker. Thread: reactor.

    :param broker: a master, or a slave, which has neither checksum nor legacy data.
    :ivar checksum: unsigned CRC-32 of the configuration file's bytes.
    :ivar topics: the topics to register, by name.
    :ivar leaving: no more nodes are created: a running ``register`` ends at its next node.
    :ivar changed: whether the last ``register`` or ``withdraw`` has changed anything.
    """

    def __init__(self, registry: IRegistry, paths: Paths, broker: Broker, checksum: int) -> None:
        self.checksum = checksum
        self.topics: dict[str, TopicRegistration] = {}
        self.leaving = False
        self.changed = False
        self._registry = registry
        self._nodes = BrokerNodes(paths, broker)
        self._owned = OwnNodes(registry, self._nodes.own, self._nodes.url)
        self._awaited: dict[str, Deferred[None]] = {}  # fires when the topic is registered
        self._open: set[str] = set()  # topics whose nodes may be missing or outdated
        self._held: dict[str, bytes | None] = {}  # written by this session; None: no node of ours
        self._verified: set[str] = set()  # of these, read since the last session event
        self._doubtful: set[str] = set()  # written in this session, with an unknown outcome
        self._generation = 0  # counts connections; work begun in an earlier one does not count
        self._has_leftovers = False  # nodes of the last run may exist

    # The nodes that the broker should have

    def update_topics(self, topics: Iterable[TopicRegistration]) -> None:
        """Register these topics with these values; others are unchanged."""
        for topic in topics:
            if self.topics.get(topic.topic) != topic:
                self.topics[topic.topic] = topic
                self._open.add(topic.topic)

    def await_topic(self, topic: str) -> Deferred[None]:
        """Fires when the topic is registered, or when its registration is given up for now."""
        done = self._awaited[topic] = Deferred()
        return done

    def session_changed(self, new_session: bool) -> None:
        """The connection was lost or came back. A new session holds nothing."""
        self._generation += 1
        self._look_again()
        if new_session:
            self._owned.remember(self._registry.session_id())
            self._held.clear()
            self._doubtful.clear()

    def _look_again(self) -> None:
        self._verified.clear()
        self._open.update(self.topics)

    # Registering

    async def register(self) -> list[RegistryError]:
        """Create or correct every node that is not known to be correct; returns the faults."""
        self.changed = False
        generation = self._generation
        faults: list[RegistryError] = []
        try:
            await self._register_broker(generation)
        except RegistryError as error:
            return [error]
        names = self._names(generation, faults)
        await in_parallel(names, lambda name: self._register(name, generation, faults), AT_ONCE)
        return faults

    async def _register_broker(self, generation: int) -> None:
        await self._hold(self._nodes.own, self._nodes.url, generation)
        if self._nodes.is_master:
            await self._register_parent(self._nodes.parent, generation)
            checksum = b"%d" % self.checksum
            await self._hold(self._nodes.checksum, checksum, generation, in_place=True)

    async def _register_parent(self, parent: str, generation: int) -> None:
        """Write the legacy data. The node exists, because our own is below it, and stays
        persistent."""
        if parent in self._verified:
            return
        try:
            if (await self._registry.get(parent))[0] != self._nodes.url:
                await self._registry.set_data(parent, self._nodes.url)
        except NoNode:
            await self._registry.create(parent, self._nodes.url, False)
        self._note(parent, self._nodes.url, generation)

    def _names(self, generation: int, faults: Sequence[RegistryError]) -> Iterator[str]:
        """The topics to register, as long as there is a connection."""
        for name in sorted(self._open):
            if any(isinstance(fault, RegistryUnavailable) for fault in faults):
                return
            if self._may_go_on(generation):
                yield name

    def _may_go_on(self, generation: int) -> bool:
        """Whether the session is the same, and the broker does not leave."""
        return generation == self._generation and not self.leaving

    async def _register(self, name: str, generation: int, faults: list[RegistryError]) -> None:
        """Make the nodes of one topic."""
        topic = self.topics[name]
        right = True
        for path, data in self._nodes.of_topic(topic):
            if not self._may_go_on(generation):
                return
            try:
                await self._hold(path, data, generation)
            except RegistryError as error:
                faults.append(error)
                right = False
                if isinstance(error, RegistryUnavailable):
                    return
        if right and generation == self._generation and topic is self.topics[name]:
            self._open.discard(name)
            self._awaited.pop(name, Deferred()).callback(None)

    async def _hold(
        self, path: str, data: bytes | None, generation: int, in_place: bool = False
    ) -> None:
        """Create, correct or remove one node, unless it is known to be correct."""
        if path in self._verified and self._held[path] == data:
            return
        if data is None:
            await self._owned.remove(path)
        else:
            self._doubtful.add(path)
            await self._owned.claim(path, data, in_place, look_first=path in self._held)
        self._note(path, data, generation)

    def _note(self, path: str, data: bytes | None, generation: int) -> None:
        """Record a success, unless it may have been in a session that has ended."""
        if generation == self._generation:
            self.changed = self.changed or path not in self._held or self._held[path] != data
            self._held[path] = data
            self._verified.add(path)
            self._doubtful.discard(path)

    # Leaving

    async def release(self) -> None:
        """
        Delete the nodes that this session holds: the broker first, then its topics, as the
        original. Nodes that cannot be deleted go with the session, which ends next.

        :raises RegistryError: there is no connection.
        """
        await self._delete_all(self._owned.release, self._held_paths())

    def expect_leftovers(self) -> None:
        """The last run may have left nodes whose session has not ended: let ``withdraw`` check all
        nodes."""
        self._has_leftovers = True

    async def withdraw(self) -> list[RegistryError]:
        """
        Delete all nodes that this session holds or may hold, while the session continues; returns
        the faults of those that remain.
        """
        self.changed = False
        self._look_again()
        faults: list[RegistryError] = []

        async def remove(path: str) -> None:
            try:
                self.changed |= await self._owned.remove(path)
            except Occupied:
                pass  # another broker's node: ours is gone
            except RegistryError as error:
                faults.append(error)
                return
            self._held.pop(path, None)
            self._doubtful.discard(path)

        leftovers = self._every_path() if self._has_leftovers else ()
        try:
            await self._delete_all(remove, {*self._held_paths(), *self._doubtful, *leftovers})
        except RegistryError as error:
            faults.append(error)
        self._has_leftovers = self._has_leftovers and bool(faults)
        return faults

    def give_up_waiting(self) -> None:
        """The registration is given up for now: let those who wait for a topic continue."""
        awaited, self._awaited = self._awaited, {}
        for done in awaited.values():
            done.callback(None)

    def _every_path(self) -> Iterator[str]:
        """The paths of all nodes that this broker may have, for the known topics."""
        yield self._nodes.own
        if self._nodes.is_master:
            yield from (self._nodes.checksum, self._nodes.parent)
        for topic in self.topics.values():
            for path, _ in self._nodes.of_topic(topic):
                yield path

    def _held_paths(self) -> set[str]:
        return {path for path, data in self._held.items() if data is not None}

    async def _delete_all(
        self, delete: Callable[[str], Awaitable[None]], paths: Iterable[str]
    ) -> None:
        """Delete the broker's own nodes one after the other, then those of the topics."""
        parent = self._nodes.parent
        left = dict.fromkeys(paths)
        for path in (self._nodes.own, self._nodes.checksum):
            if path in left:
                await delete(path)
                del left[path]
        if parent in left:
            await self._clear_parent(parent)
            del left[parent]
            self._held.pop(parent, None)
        await in_parallel(left, delete, AT_ONCE)

    async def _clear_parent(self, parent: str) -> None:
        """Delete the parent node; if a slave is below it, write empty data, which mean that its
        master left in order."""
        try:
            if (await self._registry.get(parent))[0] == self._nodes.url:
                await self._registry.delete(parent)
        except NoNode:
            pass
        except NotEmpty:
            await self._registry.set_data(parent, b"")
