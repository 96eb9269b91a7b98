"""Speaks for one rival, in the environment that has it: `PYTHON serve.py NAME`. The protocol stands in __init__.py.

Runs under other versions of Python than the project's, without the project: the standard library only, and nothing of
its own but the script of the rival beside it.
"""

import importlib
import os
import sys


def main() -> None:
    # Libraries write on standard output as they like; what is told goes over a descriptor of its own.
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        script = importlib.import_module("with_" + sys.argv[1].replace("-", "_"))
        label, jobs = script.load()
        told.write(f"ready {label}\n")
    except Exception as error:  # noqa: BLE001  # whatever it is, the other side is told
        told.write(_failed(error))
        return
    finally:
        told.flush()
    for line in sys.stdin:
        try:
            told.write(f"done {jobs[line.strip()]()}\n")
        except Exception as error:  # noqa: BLE001  # as above
            told.write(_failed(error))
        told.flush()


def _failed(error: Exception) -> str:
    return f"failed {type(error).__name__}: {' '.join(str(error).split())[:500]}\n"


if __name__ == "__main__":
    main()
