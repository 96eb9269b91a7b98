"""Runs the examples of docs/kernels.md one after the other, each as printed in a name space of its own.

A program of its own that needs nothing but an installed `accel`; the modules it loaded are printed at the end.
"""

import re
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "kernels.md"

examples = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
for text in examples:
    exec(compile(text, str(PAGE), "exec"), {})
sys.stdout.write(f"{len(examples)} examples run\n")
sys.stdout.write(" ".join(sorted({name.partition(".")[0] for name in sys.modules})) + "\n")
