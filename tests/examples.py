"""Runs the examples of docs/kernels.md one after the other, each with what its text takes for granted.

A program of its own that needs nothing but an installed `accel`; the modules it loaded are printed at the end.
"""

import re
import sys
from pathlib import Path

import numpy as np

PAGE = Path(__file__).resolve().parents[1] / "docs" / "kernels.md"
GIVEN = {
    "key": bytes(16),
    "nonce": bytes(16),
    "rows_done": 3,
    "columns": 2,
    "block": np.arange(8, dtype=np.uint32).reshape(4, 2),
    "values": np.array([1.5, -2.25]),
    "matrix": np.array([[1.0, 2.0], [0.5, -1.0], [0.0, 3.0]]),
}

examples = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
for text in examples:
    exec(compile(text, str(PAGE), "exec"), dict(GIVEN))
sys.stdout.write(f"{len(examples)} examples run\n")
sys.stdout.write(" ".join(sorted({name.partition(".")[0] for name in sys.modules})) + "\n")
