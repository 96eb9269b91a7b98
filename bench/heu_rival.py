"""sf-heu as a rival in a process and environment of its own: its dependencies are not this project's.

Run by the interpreter of that environment. Every line of stdin names a job, which is done once; the answer is a line.
One thread: the library's pool gets one core, the same as its caller's.
"""

import sys
from importlib import metadata
from typing import Any


def main() -> None:
    import numpy as np  # noqa: PLC0415  # that environment's own
    from heu import numpy as hnp  # noqa: PLC0415
    from heu import phe  # noqa: PLC0415

    jobs: dict[str, Any] = {}
    for scheme, kind in (("ou", phe.SchemaType.OU), ("paillier", phe.SchemaType.ZPaillier)):
        kit = hnp.setup(kind, 2048)
        plain = kit.array(np.arange(1000, dtype=np.int64) << 20)
        batch = kit.encryptor().encrypt(plain)
        top = 1 << 39
        matrix = kit.array(np.random.default_rng(1).integers(-top + 1, top, (10, 1000)))
        jobs |= {
            f"{scheme} encrypt": lambda k=kit, p=plain: k.encryptor().encrypt(p),
            f"{scheme} decrypt": lambda k=kit, b=batch: k.decryptor().decrypt(b),
            f"{scheme} add": lambda k=kit, b=batch: k.evaluator().add(b, b),
            f"{scheme} X^T v 1000x10": lambda k=kit, m=matrix, b=batch: k.evaluator().matmul(m, b),
        }
    print(f"ready {metadata.version('sf-heu')}", flush=True)
    for line in sys.stdin:
        jobs[line.strip()]()
        print("done", flush=True)


if __name__ == "__main__":
    main()
