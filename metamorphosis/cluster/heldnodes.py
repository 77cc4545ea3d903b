"""
The nodes that a broker should have, and those that its session is known to hold.

``register`` makes the second like the first, ``withdraw`` deletes all of them; each works through
what is left to do once and returns the faults. ``registration`` decides when.

A node counts as held when its create, or a look at it, has succeeded in the present session. After
each session event every node is looked at again: the server may have lost some.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator

from twisted.internet.defer import Deferred, gatherResults

from metamorphosis.cluster.model import Broker, TopicRegistration
from metamorphosis.cluster.nodes import BrokerNodes
from metamorphosis.cluster.ownership import Occupied, OwnNodes
from metamorphosis.cluster.paths import Paths
from metamorphosis.errors import NoNode, NotEmpty, RegistryError, RegistryUnavailable
from metamorphosis.interfaces import IRegistry

LANES = 16
"""Topics registered, or nodes deleted, at a time."""


class HeldNodes:
    """
    The nodes of one broker. Thread: reactor.

    :param broker: a master, or a slave, which has neither checksum nor legacy data.
    :ivar checksum: unsigned CRC-32 of the configuration file's bytes.
    :ivar topics: the topics to register, by name.
    :ivar leaving: nothing more is to be created: a running ``register`` ends at its next node.
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
        self._awaited: dict[str, Deferred[None]] = {}  # told when the topic is registered
        self._open: set[str] = set()  # topics whose nodes may not be right
        self._held: dict[str, bytes | None] = {}  # written by this session; None: no node of ours
        self._verified: set[str] = set()  # of these, seen since the last session event
        self._doubtful: set[str] = set()  # written in this session, with an unknown outcome
        self._generation = 0  # of the connection; work begun in one does not count in the next
        self._has_leftovers = False  # nodes of our last run may be there

    # Nodes that there should be

    def update_topics(self, topics: Iterable[TopicRegistration]) -> None:
        """These are to be registered like this; others stay as they are."""
        for topic in topics:
            if self.topics.get(topic.topic) != topic:
                self.topics[topic.topic] = topic
                self._open.add(topic.topic)

    def await_topic(self, topic: str) -> Deferred[None]:
        """Fires when the topic is registered, or is not going to be for now."""
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
        """Make every node right that is not known to be; returns why some are not."""
        self.changed = False
        generation = self._generation
        faults: list[RegistryError] = []
        try:
            await self._register_broker(generation)
        except RegistryError as error:
            return [error]
        names = iter(sorted(self._open))
        await _in_lanes(lambda: self._register_topics(names, generation, faults))
        return faults

    async def _register_broker(self, generation: int) -> None:
        await self._hold(self._nodes.own, self._nodes.url, generation)
        if self._nodes.is_master:
            await self._register_parent(self._nodes.parent, generation)
            checksum = b"%d" % self.checksum
            await self._hold(self._nodes.checksum, checksum, generation, in_place=True)

    async def _register_parent(self, parent: str, generation: int) -> None:
        """The legacy data. The node is there, as our own is below it, and stays persistent."""
        if parent in self._verified:
            return
        try:
            if (await self._registry.get(parent))[0] != self._nodes.url:
                await self._registry.set_data(parent, self._nodes.url)
        except NoNode:
            await self._registry.create(parent, self._nodes.url, False)
        self._note(parent, self._nodes.url, generation)

    async def _register_topics(
        self, names: Iterator[str], generation: int, faults: list[RegistryError]
    ) -> None:
        """One lane: takes the next topic until none is left, the session changes or we leave."""
        for name in names:
            topic = self.topics[name]
            right = True
            for path, data in self._nodes.of_topic(topic):
                if generation != self._generation or self.leaving:
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
        """Make the node as it should be unless it is known to be so."""
        if path in self._verified and self._held[path] == data:
            return
        if data is None:
            await self._owned.remove(path)
        else:
            self._doubtful.add(path)
            await self._owned.claim(path, data, in_place, look_first=path in self._held)
        self._note(path, data, generation)

    def _note(self, path: str, data: bytes | None, generation: int) -> None:
        """Remember a success, unless it may have been in a session that is over."""
        if generation == self._generation:
            self.changed = self.changed or path not in self._held or self._held[path] != data
            self._held[path] = data
            self._verified.add(path)
            self._doubtful.discard(path)

    # Leaving

    async def release(self) -> None:
        """
        Delete the nodes that this session holds: the broker first, then its topics, as the
        original. What fails is left to the end of the session, which follows.

        :raises RegistryError: there is no connection.
        """
        await self._delete_all(self._owned.release, self._held_paths())

    def expect_leftovers(self) -> None:
        """Our last run may have left nodes whose session is not over: ``withdraw`` looks at all."""
        self._has_leftovers = True

    async def withdraw(self) -> list[RegistryError]:
        """
        Delete everything that this session holds or may hold, although it goes on; returns why some
        of it is still there.
        """
        self.changed = False
        self._look_again()
        faults: list[RegistryError] = []

        async def remove(path: str) -> None:
            try:
                self.changed |= await self._owned.remove(path)
            except Occupied:
                pass  # another broker's: none of ours is left
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
        """Nothing will be registered for now: tell those that wait for a topic."""
        awaited, self._awaited = self._awaited, {}
        for done in awaited.values():
            done.callback(None)

    def _every_path(self) -> Iterator[str]:
        """Of each node that we may have, by the topics that are known."""
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
        """The broker's own nodes one after the other, then those of the topics."""
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
        rest = iter(left)

        async def lane() -> None:
            for path in rest:
                await delete(path)

        await _in_lanes(lane)

    async def _clear_parent(self, parent: str) -> None:
        """Delete it; if a slave is below it, empty data say that its master left in order."""
        try:
            if (await self._registry.get(parent))[0] == self._nodes.url:
                await self._registry.delete(parent)
        except NoNode:
            pass
        except NotEmpty:
            await self._registry.set_data(parent, b"")


async def _in_lanes(lane: Callable[[], Awaitable[None]]) -> None:
    """Run ``LANES`` of these at a time; the first error counts when all have ended."""

    async def run() -> None:
        await lane()

    lanes = [Deferred.fromCoroutine(run()) for _ in range(LANES)]
    await gatherResults(lanes, consumeErrors=True)
