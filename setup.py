"""
The one part of the build that ``setup.cfg`` cannot say: the optional extension in C.

Without a compiler or Python's headers everything works without it, slower: the broker needs two to
fifteen times the processor for a put.
"""

from __future__ import annotations

import os
import sys
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

WARNINGS = ["-Wall", "-Wextra", "-Wconversion"]
STRICT = "METAQ_NATIVE_STRICT"
"""Set in our own builds: a warning, or no module at all, is an error."""

is_strict = bool(os.environ.get(STRICT))


class BuildOptional(build_ext):
    """Says in one line what a build without the extension costs."""

    def build_extension(self, ext: Extension) -> None:
        """Build it; the caller goes on without it if that is allowed."""
        try:
            super().build_extension(ext)
        except Exception as error:
            print(
                f"metamorphosis: {ext.name} is left out ({error}): a C compiler and Python's"
                " headers are needed for it. Everything works without it; a put then costs the"
                " broker two to fifteen times the processor",
                file=sys.stderr,
            )
            raise


setup(
    ext_modules=[
        Extension(
            "metamorphosis.native._compiled",
            sorted(glob("metamorphosis/native/*.c")),
            depends=sorted(glob("metamorphosis/native/*.h")),
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            extra_compile_args=[
                *("-std=c11", "-O2", "-pthread"),
                *WARNINGS,
                *(["-Werror"] if is_strict else []),
            ],
            extra_link_args=["-pthread"],
            py_limited_api=True,
            optional=not is_strict,
        )
    ],
    cmdclass={"build_ext": BuildOptional},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
