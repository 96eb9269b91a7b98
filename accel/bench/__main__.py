"""`python -m accel.bench`: the kernels against their rivals."""

import argparse
import json
import sys

from rich.console import Console

from accel.bench.options import add_options
from accel.bench.report import show
from accel.bench.run import NothingWanted, run, write


def main() -> int:
    """The exit code; a missed target is a finding, not a failure."""
    parser = argparse.ArgumentParser(prog="python -m accel.bench", description="The kernels against their rivals.")
    parser.add_argument("--json", action="store_true", help="print one JSON value instead of tables")
    add_options(parser)
    options = parser.parse_args()
    try:
        report = run(options, Console(stderr=True, highlight=False))
        if options.out_dir is not None:
            write(report, options.out_dir)
    except (NothingWanted, OSError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130
    if options.json:
        sys.stdout.write(json.dumps(report.value(), indent=1) + "\n")
    else:
        show(report, Console(width=None if sys.stdout.isatty() else 160, highlight=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
