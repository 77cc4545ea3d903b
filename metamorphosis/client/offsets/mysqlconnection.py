"""The arguments of a MySQL connection, for type checkers and editors; the check of their names."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypedDict

from metamorphosis.errors import InvalidConfig


class MySQLConnection(TypedDict, total=False):
    """Those of ``pymysql.connect`` that make sense here. Time limits are seconds."""

    host: str
    """Name or address of the server. Default: localhost."""
    port: int
    """Default: 3306."""
    unix_socket: str
    """Path of the server's socket, in place of host and port."""
    user: str
    """Default: the user of this process."""
    password: str
    database: str
    """The database that has the table; not needed for a table named ``database.table``."""
    connect_timeout: int
    """Default: 5."""
    read_timeout: int
    """Of each statement. Default: 10."""
    write_timeout: int
    """Default: 10."""
    charset: str
    """Default: utf8mb4."""
    collation: str
    sql_mode: str
    init_command: str
    """Run after each connect."""
    client_flag: int
    """Of ``pymysql.constants.CLIENT``; ``FOUND_ROWS`` is always set."""
    bind_address: str
    """The address of this machine to connect from."""
    program_name: str
    read_default_file: str
    """A configuration file of MySQL."""
    read_default_group: str
    """The section to read of it."""
    max_allowed_packet: int
    server_public_key: bytes
    auth_plugin_map: Mapping[bytes, type[Any]]
    local_infile: bool
    ssl: Mapping[str, Any]
    """Arguments of TLS, as ``{"ca": "/etc/ca.pem"}``; or those that follow."""
    ssl_ca: str
    ssl_cert: str
    ssl_key: str
    ssl_key_password: str
    ssl_verify_cert: bool
    ssl_verify_identity: bool
    ssl_disabled: bool
    passwd: str
    """Older name of ``password``."""
    db: str
    """Older name of ``database``."""


def check_names(connection: Mapping[str, object]) -> None:
    """
    :raises InvalidConfig: one is not an argument of a connection; the text names the nearest.
    """
    names = MySQLConnection.__optional_keys__
    for name in connection.keys() - names:
        near = get_close_matches(name, names, 1)
        hint = f"{near[0]} is one" if near else f"those there are: {', '.join(sorted(names))}"
        raise InvalidConfig(f"{name} is not an argument of a MySQL connection; {hint}")
