"""An additively homomorphic "scheme" that hides nothing: a ciphertext is the pair (plaintext, noise) as integers.

It follows the contract of accel.kernels to the bit and keeps account of what was masked with what, so that a test can
check that every masked value and every noise is really drowned. Negative intermediate values are allowed, as there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from accel.kernels import BadInput, RandomSource, SparseMatrix, Uints

NUMBER_BYTES = 64


class Batch:
    def __init__(self, pairs: Sequence[tuple[int, int]]) -> None:
        self.pairs = list(pairs)

    def __len__(self) -> int:
        return len(self.pairs)


def integers(plain: Uints) -> list[int]:
    return [sum(int(limb) << 64 * i for i, limb in enumerate(row)) for row in plain]


def limbs(values: Sequence[int], count: int) -> Uints:
    data = b"".join(value.to_bytes(8 * count, "little") for value in values)
    return np.frombuffer(data, dtype="<u8").astype(np.uint64).reshape(len(values), count)


@dataclass(frozen=True)
class Masked:
    """One value on its way back to the owner: what it was, what was added."""

    value: int
    noise: int
    mask: int
    noise_bits: int


@dataclass
class TransparentPublic:
    serial: int
    masked: list[Masked]
    scheme: str = "ou"
    modulus_bits: int = 2048
    plaintext_bits: int = 500
    noise_bits: int = 256
    ciphertext_bytes: int = 2 * NUMBER_BYTES

    def to_bytes(self) -> bytes:
        return b"transparent" + bytes([self.serial])

    def encrypt(self, plain: Uints, random: RandomSource) -> Batch:
        size = self.noise_bits // 8
        return Batch([(m, int.from_bytes(random.bytes(size), "little")) for m in integers(plain)])

    def add(self, a: Batch, b: Batch) -> Batch:
        return Batch([(m + n, r + s) for (m, r), (n, s) in zip(a.pairs, b.pairs, strict=True)])

    def add_plain(self, a: Batch, plain: Uints) -> Batch:
        return Batch([(m + n, r) for (m, r), n in zip(a.pairs, integers(plain), strict=True)])

    def scale(self, a: Batch, factors: Uints) -> Batch:
        return Batch([(m * k, r * k) for (m, r), k in zip(a.pairs, integers(factors), strict=True)])

    def matvec(self, matrix: SparseMatrix, vector: Batch) -> Batch:
        rows = [(0, 0)] * matrix.rows
        for row in range(matrix.rows):
            for at in range(matrix.indptr[row], matrix.indptr[row + 1]):
                x, (m, r) = int(matrix.values[at]), vector.pairs[matrix.indices[at]]
                rows[row] = (rows[row][0] + x * m, rows[row][1] + x * r)
        return Batch(rows)

    def mask(self, a: Batch, plain: Uints, random: RandomSource, *, noise_bits: int) -> Batch:
        out = []
        for (m, r), mask in zip(a.pairs, integers(plain), strict=True):
            self.masked.append(Masked(m, r, mask, noise_bits))
            fresh = int.from_bytes(random.bytes((noise_bits + 7) // 8), "little")
            out.append((m + mask, r + fresh))
        return Batch(out)

    def rerandomise(self, a: Batch, random: RandomSource, *, noise_bits: int) -> Batch:
        raise NotImplementedError

    def join(self, parts: Sequence[Batch]) -> Batch:
        return Batch([pair for part in parts for pair in part.pairs])

    def split(self, a: Batch, lengths: Sequence[int]) -> list[Batch]:
        ends = np.cumsum([0, *lengths]).tolist()
        return [Batch(a.pairs[i:j]) for i, j in pairwise(ends)]

    def dump(self, a: Batch) -> bytes:
        return b"".join(n.to_bytes(NUMBER_BYTES, "little", signed=True) for pair in a.pairs for n in pair)

    def load(self, data: memoryview, count: int) -> Batch:
        if len(data) != count * self.ciphertext_bytes:
            raise BadInput("ciphertexts of another number or size")
        numbers = [
            int.from_bytes(data[i : i + NUMBER_BYTES], "little", signed=True) for i in range(0, len(data), NUMBER_BYTES)
        ]
        return Batch(list(zip(numbers[::2], numbers[1::2], strict=True)))


@dataclass
class TransparentSecret:
    public: TransparentPublic

    def encrypt(self, plain: Uints, random: RandomSource) -> Batch:
        return self.public.encrypt(plain, random)

    def decrypt(self, a: Batch) -> Uints:
        return limbs([m % (1 << self.public.plaintext_bits) for m, _ in a.pairs], 8)


@dataclass
class Transparent:
    """Both parties of a test share one."""

    scheme: str = "ou"
    name: str = "transparent"
    masked: list[Masked] = field(default_factory=list)
    keys: int = 0

    def generate(self, bits: int, random: RandomSource) -> TransparentSecret:
        self.keys += 1
        return TransparentSecret(TransparentPublic(self.keys, self.masked))

    def from_factors(self, p: int, q: int, base: int) -> TransparentSecret:
        raise NotImplementedError

    def load_public(self, data: memoryview) -> TransparentPublic:
        if bytes(data[:-1]) != b"transparent":
            raise BadInput("not a key")
        return TransparentPublic(data[-1], self.masked)
