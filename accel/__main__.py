"""`python -m accel`: every backend of this installation gives its known answers (accel/selftest.py).

For who has installed a wheel: needs no gateway, no source tree and no compiler, takes a second. Exit code 0; 1 where an
answer is wrong or, with --native, where this machine has no native kernels for some kernel.
"""

import argparse
import platform
import sys
from collections.abc import Sequence

from accel import registry
from accel.registry import Answers


def _outcome(row: Answers) -> str:
    if row.wrong is not None:
        return row.wrong
    return "right" if row.refusal is None else f"not asked: {row.refusal}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints one line a backend; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m accel", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--native", action="store_true", help="fail where the native kernels are missing")
    needs_native = parser.parse_args(arguments).native
    rows = list(registry.known_answers())
    for row in rows:
        sys.stdout.write(f"{row.kernel:22}{row.backend:12}{_outcome(row)}\n")
    wrong = sum(row.wrong is not None for row in rows)
    right = sum(row.refusal is None and row.wrong is None for row in rows)
    sys.stdout.write(f"{right} right, {wrong} wrong (Python {platform.python_version()}, {platform.machine()})\n")
    note = registry.without_native()
    if note is not None:
        sys.stdout.write(f"Note: {note}\n")
    return 1 if wrong or (needs_native and note is not None) else 0


if __name__ == "__main__":
    sys.exit(main())
