"""Texts of ``deletePolicy``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from metamorphosis.config.policies import PolicyText, parse_policy

HOUR = 3_600_000


class PolicyTests(SynchronousTestCase):
    """Good and bad policies."""

    def test_good(self) -> None:
        """Every form that the original takes."""
        for text, policy in {
            "delete,168": PolicyText("delete", 168 * HOUR),
            "delete,10s": PolicyText("delete", 10_000),
            "delete,30m": PolicyText("delete", 30 * 60_000),
            "delete,2h": PolicyText("delete", 2 * HOUR),
            "delete,0": PolicyText("delete", 0),
            "delete,-5s": PolicyText("delete", -5000),
            "delete,+5s": PolicyText("delete", 5000),
            "delete,168,": PolicyText("delete", 168 * HOUR),
            "delete,1,true": PolicyText("delete", HOUR),
            "delete,2147483647h": PolicyText("delete", 2147483647 * HOUR),
            "delete,-2147483648h": PolicyText("delete", -2147483648 * HOUR),
            "archive,3": PolicyText("archive", 3 * HOUR),
            "archive,3,true": PolicyText("archive", 3 * HOUR, True),
            "archive,3,TRUE,x": PolicyText("archive", 3 * HOUR, True),
            "archive,3,yes": PolicyText("archive", 3 * HOUR, False),
            "archive,3, true": PolicyText("archive", 3 * HOUR, False),
        }.items():
            self.assertEqual(parse_policy(text), policy, text)

    def test_unknown(self) -> None:
        """Another name is an unknown policy; parts are not trimmed."""
        for text, name in (("x,1", "'x'"), (" delete,1", "' delete'"), ("", "''"), (",1", "''")):
            error = self.assertRaises(ValueError, parse_policy, text)
            self.assertIn(f"UnknownDeletePolicyException: {name}; the policy is", str(error))

    def test_bad_retention(self) -> None:
        """A retention that is not a number of known units."""
        for text in (
            "delete",
            "delete,",
            "delete,7d",
            "delete, 168",
            "delete,168 ",
            "delete,10H",
            "delete,m",
            "delete,1.5",
            "delete,2147483648",
            "delete,-2147483649",
            "delete,99999999999999999999",
        ):
            error = self.assertRaises(ValueError, parse_policy, text)
            self.assertIn("New delete policy `delete` failed: ", str(error), text)
            self.assertIn("delete,168", str(error))
        error = self.assertRaises(ValueError, parse_policy, "archive")
        self.assertIn("New delete policy `archive` failed", str(error))
