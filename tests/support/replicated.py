"""
Members of a replicated broker as real processes: ``BrokerProcess`` with one of the roles.

A test says::

    slave = Member(self.mktemp(), "gregor", topics=TOPICS)
    master = Member(self.mktemp(), "samsa", {"slave": slave.address}, topics=TOPICS)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from tests.support.broker import BrokerProcess, Keys


class Member(BrokerProcess):
    """
    One process.

    :param role: ``slave``, ``samsa`` or ``gregor``; None: a plain broker.
    :param properties: of the role's property file.
    :ivar variables: of the environment of its processes, beside the usual ones.
    """

    def __init__(
        self, directory: str, role: str | None, properties: Keys | None = None, **options: Any
    ) -> None:
        super().__init__(directory, **options)
        self.role = role
        self.properties = dict(properties or {})
        self.variables: dict[str, str] = {}

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self.port}"

    @property
    def property_file(self) -> str:
        """Its path."""
        return os.path.join(self.directory, "role.properties")

    def write_configuration(self) -> None:
        """See ``BrokerProcess``; the property file as well."""
        super().write_configuration()
        text = "".join(f"{key}={value}\n" for key, value in self.properties.items())
        self._write(self.property_file, text)

    def environment(self) -> dict[str, str]:
        """See ``BrokerProcess``."""
        return {**super().environment(), **self.variables}

    def command(self, options: Sequence[str] = ()) -> list[str]:
        """See ``BrokerProcess``."""
        role = [] if self.role is None else [f"--{self.role}", self.property_file]
        return [*super().command(options), *role]

    def move(self, port: int) -> None:
        """From the next start on it listens on another port."""
        self.port = port
        self.system["serverPort"] = port
