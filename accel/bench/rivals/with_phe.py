"""python-paillier (GPL): textbook Paillier, one number after the other. Imported by rivals/serve.py only."""

from collections.abc import Callable, Mapping
from importlib import metadata

from phe import paillier


def load() -> tuple[str, Mapping[str, Callable[[], int]]]:
    """Label, and jobs that say how many units they did."""
    public, private = paillier.generate_paillier_keypair(n_length=2048)
    few = [public.encrypt((1 << 39) + i) for i in range(50)]
    one = few[0]
    factor = 987654321987  # 40 bits
    signed = [factor if i % 2 else -factor for i in range(len(few))]

    def encrypt() -> int:
        return len([public.encrypt((1 << 39) + i) for i in range(10)])

    def decrypt() -> int:
        return len([private.decrypt(c) for c in few[:10]])

    def add() -> int:
        return len([one + one for _ in range(1000)])

    def scale() -> int:
        return len([c * factor for c in few])

    def dot() -> int:
        total = few[0] * signed[0]
        for c, x in zip(few[1:], signed[1:]):  # noqa: B905  # also for older versions of Python
            total = total + c * x
        return len(few)

    jobs = {"encrypt": encrypt, "decrypt": decrypt, "add": add, "scale": scale, "dot": dot}
    return f"phe {metadata.version('phe')}", jobs
