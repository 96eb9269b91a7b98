"""The options of a run, for both of its command lines. Loads nothing large."""

import argparse
from pathlib import Path

RIVALS = ("phe", "sf-heu", "fate-utils", "openmined-psi", "flwr")


def add_options(parser: argparse.ArgumentParser) -> None:
    """As `accel.bench.run.run` reads them."""
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, smaller matrices: rough")
    parser.add_argument(
        "--only", action="append", default=[], metavar="TEXT", help="rows with this in their family or kernel; repeat"
    )
    parser.add_argument(
        "--rival", action="append", default=[], type=_rival, metavar="NAME=PYTHON",
        help="a rival by the Python of an environment that has it; repeat. NAME: " + ", ".join(RIVALS),
    )  # fmt: skip
    parser.add_argument(
        "--out", dest="out_dir", type=Path, metavar="DIR", help="write kernels.json, kernels.md and drawings there"
    )


def _rival(text: str) -> tuple[str, str]:
    name, equals, python = text.partition("=")
    if name not in RIVALS or not equals or not python:
        raise argparse.ArgumentTypeError(f"NAME=PYTHON with NAME one of {', '.join(RIVALS)}")
    return name, python
