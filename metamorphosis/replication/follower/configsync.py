"""The time at which topics of the master's ``server.ini`` are taken over: see ``masterconfig``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable

from metamorphosis.client.network.links import Log
from metamorphosis.config import serverini
from metamorphosis.config.model import TopicConfig
from metamorphosis.errors import ConfigError, PeerError
from metamorphosis.interfaces import IRuntime, Timer
from metamorphosis.replication.follower.masterconfig import merge, replace_file
from metamorphosis.replication.peer import Peer

RETRY_SECONDS = 3.0


class ConfigSync:
    """
    Fetches the file, merges it into ours and reloads it. Thread: reactor.

    :param path: of our ``server.ini``.
    :param reload: reloads it.
    :ivar fault: the reason why the last attempt failed; empty after a success.
    """

    def __init__(self, runtime: IRuntime, path: str, reload: Callable[[], None], log: Log) -> None:
        self.fault = ""
        self._runtime = runtime
        self._path = path
        self._reload = reload
        self._log = log
        self._run = 0
        self._timer: Timer | None = None

    def sync(self, peer: Peer) -> None:
        """Begin: the master is connected, or its file has changed."""
        self.stop()
        self._runtime.start(self._sync(peer, self._run))

    def stop(self) -> None:
        """Cancel the present attempt."""
        self._run += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _sync(self, peer: Peer, run: int) -> None:
        try:
            content = await peer.config_file()
            if run == self._run:
                self._take(peer, content)
        except (PeerError, ConfigError, OSError) as error:
            if run == self._run:
                self._failed(str(error))
                self._timer = self._runtime.call_later(RETRY_SECONDS, self.sync, peer)
        except Exception:
            self._log.failure("Taking topics over from the master failed")

    def _take(self, peer: Peer, content: bytes) -> None:
        """
        :raises ConfigError: our broker would not start with the result.
        :raises OSError: the file cannot be read or written.
        """
        with open(self._path, "rb") as file:
            own = file.read()
        merged = merge(own, content)
        self.fault = ""
        if merged == own:
            return
        with tempfile.NamedTemporaryFile(suffix=".ini") as trial:
            trial.write(merged)
            trial.flush()
            check_data_paths(serverini.load(trial.name).topics.values())
        replace_file(self._path, merged)
        self._log.info(
            "Topics of {path} were taken over from {master}", path=self._path, master=peer.url
        )
        self._reload()

    def _failed(self, fault: str) -> None:
        if fault != self.fault:
            self.fault = fault
            self._log.error(
                "Topics are not taken over from the master, {path} stays as it is, and it is tried"
                " again every {seconds} s: {fault}",
                path=self._path,
                seconds=RETRY_SECONDS,
                fault=fault,
            )


def check_data_paths(topics: Iterable[TopicConfig]) -> None:
    """
    Check that each topic's ``dataPath``, which is the master's, can be used on this machine as
    well.

    :raises ConfigError: one cannot.
    """
    for topic in topics:
        path = os.path.abspath(topic.data_path)
        if topic.data_path and not os.path.isdir(path):
            if not os.access(os.path.dirname(path), os.W_OK | os.X_OK):
                raise ConfigError(
                    f"[topic={topic.name}] dataPath={topic.data_path} cannot be created on this"
                    " machine: create the directory, or leave dataPath out of the section on the"
                    " master"
                )
