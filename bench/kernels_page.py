"""The kernels' part of docs/benchmarks.md from the report of a run: `python -m bench.kernels_page FILE`, by `make
bench-page`. The report and the drawings are kept in docs/benchmarks/, so that the page can be made again from them.
"""

import sys
from pathlib import Path
from typing import Final

from accel.bench.plots import write_plots
from accel.bench.report import NoReport, Report, markdown

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
BEGIN: Final = "<!-- made by `make bench-page` from docs/benchmarks/kernels.json -->\n"
END: Final = "<!-- until here -->\n"


def write(report: Report, docs: Path = DOCS) -> None:
    """Page, report and drawings. ValueError for a report of some rows only, or where the page lacks the marks."""
    if report.machine["only"]:
        raise ValueError("a run of some rows only: the page wants a whole one")
    page, folder = docs / "benchmarks.md", docs / "benchmarks"
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page.name}: the marks of the part about the kernels are missing")
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    write_plots(folder, report)
    (folder / "kernels.json").write_text(report.text(), encoding="utf-8")
    page.write_text(f"{before}{begin}{markdown(report, folder.name)}{end}{after}", encoding="utf-8")


def main() -> int:
    if len(sys.argv) != 2:
        print("python -m bench.kernels_page FILE", file=sys.stderr)
        return 2
    try:
        write(Report.read(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except (OSError, NoReport, ValueError) as error:
        print(f"{sys.argv[1]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
