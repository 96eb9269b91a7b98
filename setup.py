"""The native kernels of accel/: an optional extension, so that an install without a C compiler still works.

One build for every CPU of an architecture: the functions that need AVX-512 carry their own target, and what may run is
decided at run time (accel/registry.py). With INTERCONN_NATIVE=required a build that fails is an error: who makes wheels
for others wants that. Everything else about the package stands in pyproject.toml.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = [
    "module.c", "cpu.c", "mont_portable.c", "mont_ifma.c", "mont_pairs_ifma.c", "x25519_portable.c", "x25519_ifma.c",
    "threads.c",
    "bind_curves.c", "digest_portable.c", "digest_x86.c", "group25519_ifma.c", "group25519_portable.c",
    "wcurve_ifma.c", "wcurve_portable.c",
    "bind_masks.c", "masks_portable.c", "masks_avx2.c", "masks_avx512.c", "rings.c",
]  # fmt: skip
HEADERS = [
    "aes_slices.h", "bind_curves.h", "binding.h", "cpu.h", "digest.h", "digest_rounds.h", "digits.h", "f25519_ifma.h",
    "f25519_portable.h", "five_ifma.h", "group25519.h", "group25519_algos.h", "masks.h", "masks_lanes.h", "mont.h",
    "mont_algos.h", "mont_buckets.h", "mont_lanes_ifma.h", "ring128.h", "rings.h", "scalar_masks.h", "threads.h",
    "wcurve.h", "wcurve_algos.h", "x25519.h", "x25519_ladder.h",
]  # fmt: skip


class OptionalBuild(build_ext):
    """Says in words what it means when the extension cannot be built."""

    def run(self) -> None:
        super().run()
        if not all(Path(self.get_ext_fullpath(e.name)).exists() for e in self.extensions):
            sys.stderr.write(
                "interconn: no native kernels were built (is there a C compiler, and Python's headers?); "
                "the package works on the slower `reference` backend, see `interconn backends`.\n"
            )


# What CFLAGS says of optimisation and debug information holds. Python's own flags may ask for the latter, seven times
# the size of the code.
CFLAGS = os.environ.get("CFLAGS", "").split()
FLAGS = ["-std=c11", "-pthread", "-fno-strict-aliasing", "-fvisibility=hidden"]
FLAGS += [own for own in ("-O2", "-g0") if not any(flag.startswith(own[:2]) for flag in CFLAGS)]

setup(
    cmdclass={"build_ext": OptionalBuild},
    ext_modules=[
        Extension(
            "accel._native",
            sources=[f"accel/csrc/{name}" for name in SOURCES],
            depends=[f"accel/csrc/{name}" for name in HEADERS],
            extra_compile_args=FLAGS,
            extra_link_args=["-pthread"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            py_limited_api=True,
            optional=os.environ.get("INTERCONN_NATIVE") != "required",
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
