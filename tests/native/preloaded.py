"""
Runs tests with another build of the native module: ``python -m tests.native.preloaded FILE
TEST...``.
"""

from __future__ import annotations

import importlib.util
import os
import sys

from twisted.scripts import trial

NAME = "metamorphosis.native._compiled"


def main() -> None:
    """Load the file under the name of the module before anybody imports that; then trial."""
    path, *tests = sys.argv[1:]
    spec = importlib.util.spec_from_file_location(NAME, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[NAME] = module
    import metamorphosis.native

    if metamorphosis.native.compiled is not module:
        raise SystemExit(f"{path} is not what is tested, but {metamorphosis.native.compiled}")
    directory = f".cache/sanitized/trial-{os.getpid()}"  # several may run at the same time
    sys.argv = ["trial", "--temp-directory", directory, *tests]
    trial.run()


if __name__ == "__main__":
    main()
