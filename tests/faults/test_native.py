"""The part in C under sanitizers; ``make fuzz-codec`` and ``make test-asan`` do it for longer."""

from __future__ import annotations

import os
import subprocess

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.native.sanitized import ROOT, Missing, codec_command, module_command

SECONDS = int(os.environ.get("CODEC_SECONDS", "20"))
SEED = 20261130


class SanitizedTests(SynchronousTestCase):
    """No invalid access, overflow or undefined behaviour."""

    timeout = 600  # beside other stages on a slow machine; 80 s alone

    def test_both(self) -> None:
        """The codec on random requests, and the module in its unit tests, at the same time."""
        try:
            codec = subprocess.Popen(
                codec_command(SECONDS, SEED), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            self.addCleanup(codec.kill)
            command, environment = module_command()
        except Missing as missing:
            raise SkipTest(str(missing)) from None
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        self.assertEqual(done.returncode, 0, f"{done.stdout[-5000:]}\n{done.stderr[-5000:]}")
        self.assertIn("PASSED", done.stdout)
        output = codec.communicate()[0].decode(errors="replace")
        self.assertEqual(codec.returncode, 0, output[-5000:])
