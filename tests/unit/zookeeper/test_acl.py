"""Permissions."""

from __future__ import annotations

import base64
import hashlib

from kazoo.security import make_digest_acl_credential
from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.zookeeper.acl import (
    MAX_ENTRIES,
    MAX_IDENTITIES,
    OPEN,
    Acl,
    Identity,
    allowed,
    authenticate,
    check,
    granted,
    pack_acl,
    read_acl,
    without_digests,
)
from metamorphosis.zookeeper.codes import Code, Permission, ZooKeeperError
from metamorphosis.zookeeper.jute import MalformedRequest, Reader
from tests.support.zookeeperpeer import acl, integers, text

HOME: list[Identity] = [("ip", "127.0.0.1")]
USER: Identity = ("digest", "user:hash")
READ, ALL, ADMIN = Permission.READ, Permission.ALL, Permission.ADMIN


def ip_allows(entry: str, address: str) -> bool:
    """Whether an ip entry is for an address."""
    return allowed(((ALL, "ip", entry),), READ, [("ip", address)])


class ReadTests(SynchronousTestCase):
    """The vector of entries."""

    def test_the_open_one_is_one_object(self) -> None:
        """Nearly all nodes share it; what follows it is read from the right place."""
        reader = Reader(b"??" + pack_acl(OPEN) + integers(7), 2)
        self.assertIs(read_acl(reader), OPEN)
        self.assertEqual(reader.integer(), 7)

    def test_entries(self) -> None:
        """Null ids are kept for ``granted`` to judge."""
        entries = ((1, "digest", "a:b"), (31, "auth", None), (0, None, ""))
        reader = Reader(acl(*entries) + integers(7))
        self.assertEqual(read_acl(reader), entries)
        self.assertEqual(reader.integer(), 7)

    def test_claimed_entries(self) -> None:
        """2^30 of them are not there; null reads as none."""
        self.assertRaises(MalformedRequest, read_acl, Reader(integers(1 << 30) + bytes(100)))
        self.assertEqual(read_acl(Reader(integers(-1))), ())

    def test_pack(self) -> None:
        """What was read is written."""
        entries = ((1, "digest", "a:b"), (31, "ip", "10.0.0.0/8"))
        self.assertEqual(pack_acl(entries), acl(*entries))


class GrantedTests(SynchronousTestCase):
    """What is stored for what was asked for."""

    def assert_refused(self, *entries: tuple[int, str | None, str | None]) -> None:
        """INVALID_ACL."""
        error = self.assertRaises(ZooKeeperError, granted, entries, [*HOME, USER])
        self.assertIs(error.code, Code.INVALID_ACL)

    def test_empty_is_refused(self) -> None:
        """A node without any permission."""
        self.assert_refused()

    def test_duplicates_go(self) -> None:
        """The first of equal entries stays in its place."""
        entries = (1, "world", "anyone"), (31, "ip", "::1"), (1, "world", "anyone")
        self.assertEqual(granted(entries, HOME), entries[:2])
        self.assertIs(granted((OPEN[0], OPEN[0]), HOME), OPEN)

    def test_auth_is_who_the_client_is(self) -> None:
        """All its digests and not its address; the id of the entry does not count."""
        second: Identity = ("digest", "second:x")
        for name in (None, "", "whoever"):
            self.assertEqual(
                granted(((5, "auth", name),), [*HOME, USER, second]), ((5, *USER), (5, *second))
            )

    def test_auth_of_nobody_is_refused(self) -> None:
        """An address does not authenticate a client."""
        error = self.assertRaises(ZooKeeperError, granted, ((31, "auth", ""),), HOME)
        self.assertIs(error.code, Code.INVALID_ACL)

    def test_auth_twice_is_one_entry(self) -> None:
        """What auth stands for may be there already."""
        self.assertEqual(granted(((31, *USER), (31, "auth", "")), [USER]), ((31, *USER),))

    def test_false_forms_are_refused(self) -> None:
        """As 3.8 refuses them."""
        for scheme, name in (
            ("world", "nobody"),
            ("world", None),
            ("digest", "a"),
            ("digest", "a:b:c"),
            ("digest", "a:"),
            ("digest", None),
            ("ip", "a"),
            ("ip", "1.2.3"),
            ("ip", "1.2.3.4/33"),
            ("ip", "1.2.3.4/-1"),
            ("ip", "1.2.3.4/"),
            ("ip", "1.2.3.4/255.0.0.0"),
            ("ip", "::1/129"),
            ("super", "x"),
            ("", ""),
            (None, "x"),
        ):
            self.assert_refused((31, scheme, name))
            self.assert_refused(OPEN[0], (31, scheme, name))

    def test_too_many_entries(self) -> None:
        """Identities that were sent, and those that follow from the connection."""
        wish = [(1, "digest", f"user{number}:x") for number in range(MAX_ENTRIES)]
        self.assertEqual(len(granted(tuple(wish), [])), MAX_ENTRIES)
        for more in ((1, "world", "anyone"), (1, "auth", "")):
            with self.assertRaises(ZooKeeperError) as raised:
                granted((*wish, more), [("digest", "a:b")])
            self.assertEqual(raised.exception.code, Code.INVALID_ACL)

    def test_good_forms(self) -> None:
        """As 3.8 takes them; bits beyond the mask do not matter."""
        for scheme, name in (
            ("world", "anyone"),
            ("digest", ":x"),
            ("digest", "a:b:"),
            ("ip", "1.2.3.4"),
            ("ip", "1.2.3.4/0"),
            ("ip", "10.1.1.1/8"),
            ("ip", "fe80::/10"),
        ):
            self.assertEqual(granted(((1, scheme, name),), HOME), ((1, scheme, name),))


class AllowedTests(SynchronousTestCase):
    """Entries against identities."""

    def test_open_and_empty(self) -> None:
        """The open list allows every client; an empty list cannot be set."""
        self.assertTrue(allowed(OPEN, ALL, []))
        self.assertTrue(allowed((), ALL, []))

    def test_any_of_the_permissions_will_do(self) -> None:
        """A list is readable with the permission to read or to administer."""
        entries: Acl = ((ADMIN, "world", "anyone"),)
        self.assertTrue(allowed(entries, READ | ADMIN, HOME))
        self.assertFalse(allowed(entries, READ, HOME))

    def test_digest(self) -> None:
        """The very one, in its scheme."""
        entries: Acl = ((READ, *USER), (ADMIN, "digest", "other:x"))
        self.assertTrue(allowed(entries, READ, [*HOME, USER]))
        self.assertFalse(allowed(entries, ADMIN, [*HOME, USER]))
        self.assertFalse(allowed(entries, READ, [("ip", "user:hash")]))
        self.assertFalse(allowed(entries, READ, HOME))

    def test_ip(self) -> None:
        """Addresses and networks of both kinds; a mapped address is the one it stands for."""
        for entry, address, outcome in (
            ("127.0.0.1", "127.0.0.1", True),
            ("127.0.0.1", "127.0.0.2", False),
            ("10.1.2.3/8", "10.9.9.9", True),
            ("10.0.0.0/9", "10.128.0.0", False),
            ("1.2.3.4/0", "9.9.9.9", True),
            ("::1", "::1", True),
            ("fe80::/10", "fe80::1", True),
            ("fe80::/10", "::1", False),
            ("127.0.0.0/8", "::ffff:127.0.0.1", True),
            ("127.0.0.1", "::1", False),
            ("127.0.0.1", "no address", False),
        ):
            self.assertIs(ip_allows(entry, address), outcome, (entry, address))

    def test_check(self) -> None:
        """NO_AUTH when it is not allowed."""
        check(OPEN, ALL, [])
        error = self.assertRaises(ZooKeeperError, check, ((READ, *USER),), READ, HOME)
        self.assertIs(error.code, Code.NO_AUTH)

    def test_without_digests(self) -> None:
        """The user's name stays."""
        self.assertEqual(
            without_digests(((1, *USER), (2, "ip", "::1"))),
            ((1, "digest", "user:x"), (2, "ip", "::1")),
        )


class AuthenticateTests(SynchronousTestCase):
    """Auth packets."""

    def become(
        self, scheme: str | None, credentials: bytes | None, *known: Identity
    ) -> tuple[bool, list[Identity]]:
        """The outcome, and the identities after it."""
        identities = [*HOME, *known]
        packet = integers(0) + text(scheme) + text(credentials)
        return authenticate(Reader(packet), identities), identities[1:]

    def test_digest_is_that_of_clients(self) -> None:
        """kazoo computes the same for the entries it writes."""
        name = make_digest_acl_credential("user", "pass")
        self.assertEqual(self.become("digest", b"user:pass"), (True, [("digest", name)]))

    def test_the_first_colon_divides(self) -> None:
        """Further colons belong to the password; without a colon there is none."""
        for credentials, user in ((b"a:b:c", "a"), (b"nocolon", "nocolon"), (b"", "")):
            digest = base64.b64encode(hashlib.sha1(credentials).digest()).decode()
            self.assertEqual(
                self.become("digest", credentials), (True, [("digest", f"{user}:{digest}")])
            )

    def test_once_is_enough(self) -> None:
        """The same identity is not added again."""
        _, identities = self.become("digest", b"a:b")
        self.assertEqual(self.become("digest", b"a:b", *identities), (True, identities))

    def test_ip_says_nothing_new(self) -> None:
        """The connection knows its address."""
        self.assertEqual(self.become("ip", b"10.0.0.1"), (True, []))

    def test_refused(self) -> None:
        """Unknown schemes, nulls, too many identities, bytes that are not a packet."""
        for scheme in ("world", "sasl", "super", "auth", "", None):
            self.assertEqual(self.become(scheme, b"anyone"), (False, []))
        self.assertEqual(self.become("digest", None), (False, []))
        many = [("digest", str(number)) for number in range(MAX_IDENTITIES)]
        self.assertFalse(authenticate(Reader(integers(0) + text("digest") + text(b"a:b")), many))
        self.assertFalse(authenticate(Reader(b"abc"), []))

    def test_bytes_that_are_not_utf_8(self) -> None:
        """Java reads replacement characters; the same bytes are the same user every time."""
        first, second = self.become("digest", b"\xff:x"), self.become("digest", b"\xff:x")
        self.assertEqual(first, second)
        self.assertTrue(first[0])
