"""
Runs the tests named in the lines of a file: ``python -m tests.mutants.trying FILE DIRECTORY``.
Ends with status 1 at the first that fails.
"""

from __future__ import annotations

import os
import sys
import warnings
from itertools import groupby
from typing import Any

from twisted.trial import reporter, runner

NOTICED = 1


class FirstFailure(reporter.Reporter):  # type: ignore[misc]
    """Ends the process."""

    def addFailure(self, test: Any, fail: Any) -> None:
        """Noticed."""
        print(test.id(), flush=True)
        os._exit(NOTICED)

    def addError(self, test: Any, error: Any) -> None:
        """Noticed."""
        self.addFailure(test, error)


def main(path: str, directory: str) -> None:
    """Run them in this order."""
    warnings.filterwarnings(
        "error", category=DeprecationWarning, module="(metamorphosis|tests)[/.]"
    )
    with open(path, encoding="utf-8") as file:
        names = file.read().split()
    # A module at a time: most faults are noticed before the others need to be imported.
    for _, group in groupby(names, key=lambda name: name.rsplit(".", 2)[0]):
        suite = runner.TestLoader().loadByNames(list(group))
        runner.TrialRunner(FirstFailure, stream=sys.stdout, workingDirectory=directory).run(suite)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
