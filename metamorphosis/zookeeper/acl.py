"""
Permissions: the schemes world, ip, digest and auth.

An ACL is a tuple of entries ``(permissions, scheme, id)``; an identity is ``(scheme, id)``. Every
connection has the identity ``("ip", address)``; a digest is added by an auth packet.

Source: ``PrepRequestProcessor``, ``DigestAuthenticationProvider``, ``IPAuthenticationProvider``.

Differs: ip entries may be IPv6, which 3.8 refuses, because a server on ``::1`` has only such
addresses. A connection has at most a thousand identities, an ACL at most a thousand entries.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import Sequence
from typing import Final

from metamorphosis.zookeeper.codes import Code, Permission, ZooKeeperError
from metamorphosis.zookeeper.jute import MalformedRequest, Reader, pack_integer, pack_string

Identity = tuple[str, str]
Acl = tuple[tuple[int, str, str], ...]
#: an ACL as a client sent it; ids may be null until ``granted`` has checked it
Wish = tuple[tuple[int, str | None, str | None], ...]

#: every client has every permission
OPEN: Final[Acl] = ((Permission.ALL, "world", "anyone"),)

#: limit for one connection; a client has few, and each costs time at every check
MAX_IDENTITIES: Final = 1000

#: limit for one ACL; ``auth`` entries in a request of 1 MiB could ask for a thousand times as many
MAX_ENTRIES: Final = 1000


def pack_acl(acl: Acl) -> bytes:
    """The vector of entries."""
    parts = [pack_integer(len(acl))]
    for permissions, scheme, identity in acl:
        parts += pack_integer(permissions), pack_string(scheme), pack_string(identity)
    return b"".join(parts)


_OPEN_PACKED: Final = pack_acl(OPEN)
_OPEN_LENGTH: Final = len(_OPEN_PACKED)


def read_acl(reader: Reader) -> Wish:
    """The vector of entries; nearly all are ``OPEN``, which is recognised without parsing."""
    position = reader.position
    if reader.frame.startswith(_OPEN_PACKED, position):
        reader.position = position + _OPEN_LENGTH
        return OPEN
    entries = [(reader.integer(), reader.text(), reader.text()) for _ in range(reader.count())]
    return tuple(entries)


def granted(wish: Wish, identities: Sequence[Identity]) -> Acl:
    """
    The ACL to store for one that a client asked for: without duplicates, ``auth`` replaced by the
    identities of the client.

    :raises ZooKeeperError: INVALID_ACL: it is empty, has more than ``MAX_ENTRIES``, or an entry of
        an unknown or invalid form.
    """
    if wish is OPEN:
        return OPEN
    entries: dict[tuple[int, str, str], None] = {}
    for permissions, scheme, identity in dict.fromkeys(wish):
        if scheme == "auth":
            own = [known for known in identities if known[0] == "digest"]
            if not own:
                raise ZooKeeperError(Code.INVALID_ACL)
            entries.update(dict.fromkeys((permissions, *known) for known in own))
        elif scheme is not None and identity is not None and _well_formed(scheme, identity):
            entries[permissions, scheme, identity] = None
        else:
            raise ZooKeeperError(Code.INVALID_ACL)
        if len(entries) > MAX_ENTRIES:
            raise ZooKeeperError(Code.INVALID_ACL)
    if not entries:
        raise ZooKeeperError(Code.INVALID_ACL)
    acl = tuple(entries)
    return OPEN if acl == OPEN else acl


def _well_formed(scheme: str, identity: str) -> bool:
    if scheme == "world":
        return identity == "anyone"
    if scheme == "digest":
        return len(identity.rstrip(":").split(":")) == 2
    return scheme == "ip" and _network(identity) is not None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """``address`` or ``address/bits``; bits of the address beyond the mask do not count."""
    bits = text.partition("/")[2]
    if "/" in text and not (bits.isascii() and bits.isdigit()):
        return None  # a netmask such as 255.0.0.0 is not a number of bits
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def allowed(acl: Acl, permission: int, identities: Sequence[Identity]) -> bool:
    """
    Whether one of the entries with one of these permissions is for one of these identities.

    An ACL without entries, which only the server's own nodes could have, allows everything.
    """
    if acl is OPEN or not acl:
        return True
    for permissions, scheme, identity in acl:
        if permissions & permission and (
            scheme == "world" or any(_matches(scheme, identity, own) for own in identities)
        ):
            return True
    return False


def check(acl: Acl, permission: int, identities: Sequence[Identity]) -> None:
    """
    Check a permission.

    :raises ZooKeeperError: NO_AUTH: ``allowed`` is false.
    """
    if acl is not OPEN and not allowed(acl, permission, identities):
        raise ZooKeeperError(Code.NO_AUTH)


def _matches(scheme: str, identity: str, own: Identity) -> bool:
    if own[0] != scheme:
        return False
    if scheme != "ip":
        return own[1] == identity
    network = _network(identity)
    try:
        address = ipaddress.ip_address(own[1])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return network is not None and address in network


def without_digests(acl: Acl) -> Acl:
    """The ACL as shown to clients that may read the node but not administer it."""
    return tuple(
        (permissions, scheme, identity.partition(":")[0] + ":x" if scheme == "digest" else identity)
        for permissions, scheme, identity in acl
    )


def authenticate(reader: Reader, identities: list[Identity]) -> bool:
    """
    Read an auth packet and add the identity in it.

    :returns: False if the scheme is not ``digest`` or ``ip`` (which adds no identity), if the
        packet cannot be read, or if the connection has too many identities.
    """
    try:
        reader.integer()
        scheme, credentials = reader.text(), reader.buffer()
    except MalformedRequest:
        return False
    if scheme == "ip":
        return True
    if scheme != "digest" or credentials is None or len(identities) >= MAX_IDENTITIES:
        return False
    text = credentials.decode(errors="replace")
    digest = base64.b64encode(hashlib.sha1(text.encode()).digest()).decode()
    identity = "digest", f"{text.partition(':')[0]}:{digest}"
    if identity not in identities:
        identities.append(identity)
    return True
