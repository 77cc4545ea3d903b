"""
The addresses of ZooKeeper, as in ``zk.zkConnect`` and the client's ``zookeeper``. Pure.

Differs: the original passes the text to its ZooKeeper client, which reads ``a;b`` and
``http://host`` as names of hosts and tries to resolve them as long as the process runs.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

DEFAULT_PORT: Final = 2181
EXPECTED: Final = "host:port,host:port/chroot expected, as in localhost:2181"

_SERVER: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[\w.-]+)(?::(?P<port>[0-9]{1,5}))?")
_OTHER_PARTS: Final = {";": "a semicolon", " ": "a space", "\t": "a tab", "\u3000": "a wide space"}


class Connect(NamedTuple):
    """
    A parsed text.

    :ivar hosts: ``host:port,host:port``, without spaces.
    :ivar chroot: empty, or with a slash at its beginning and none at its end.
    """

    hosts: str
    chroot: str


def parse_connect(text: str) -> Connect:
    """
    Hosts and chroot; a server without port has 2181.

    :raises ValueError: the text has another form; the error names the part and the valid form.
    """
    if "://" in text:
        raise ValueError(f"ZooKeeper has no URL; {EXPECTED}")
    hosts, _, chroot = text.strip().partition("/")
    servers = [_server(each.strip()) for each in hosts.split(",")]
    chroot = chroot.strip("/")
    if "//" in chroot or not chroot.isprintable() or " " in chroot:
        raise ValueError(f"chroot {chroot!r}: a path expected, as in localhost:2181/metaq")
    return Connect(",".join(servers), f"/{chroot}" if chroot else "")


def _server(text: str) -> str:
    if not text:
        raise ValueError(f"a host is missing; {EXPECTED}")
    match = _SERVER.fullmatch(text)
    if match is None:
        found = [name for character, name in _OTHER_PARTS.items() if character in text]
        hint = f"{found[0]} does not part servers, a comma does; " if found else ""
        raise ValueError(f"{text!r} is not host:port; {hint}{EXPECTED}")
    if match["port"] is not None and not 1 <= int(match["port"]) <= 65535:
        raise ValueError(f"the port of {text!r} is not within 1 to 65535; {EXPECTED}")
    return text
