"""Dense matrices over Z_{2^64} and Z_{2^128} by numpy."""

from typing import Final

import numpy as np

from accel.backends.reference.ring128 import NumpyRing128
from accel.kernels import BadInput, RandomSource, Uints, is_array

_LIMBS: Final = 128 // 16


class NumpyRingMatrices:
    """See accel.kernels.RingMatrices for the contract."""

    def __init__(self, *, threads: int = 1) -> None:
        del threads
        self.name = "reference"
        self._wide = NumpyRing128()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"

    def product(self, a: Uints, b: Uints, *, transposed: bool = False, onto: Uints | None = None) -> Uints:
        shape = check_product(a, b, transposed=transposed, onto=onto)
        out = np.zeros(shape, np.uint64) if onto is None else onto
        self._multiply(np.ascontiguousarray(a), np.ascontiguousarray(b), transposed, out)
        return out

    def share(self, values: Uints, random: RandomSource) -> tuple[Uints, Uints]:
        check_matrix(values)
        mask = np.frombuffer(random.bytes(values.nbytes), "<u8").astype(np.uint64).reshape(values.shape)
        return mask, self.difference(values, mask)

    def combine(self, a: Uints, b: Uints) -> Uints:
        _check_alike(a, b)
        return a + b if a.ndim == 2 else self._wide.add(a, b)

    def difference(self, share: Uints, mask: Uints) -> Uints:
        _check_alike(share, mask)
        return share - mask if share.ndim == 2 else self._wide.sub(share, mask)

    def beaver(
        self, triple: tuple[Uints, Uints, Uints], left: Uints, right: Uints, *, first: bool, transposed: bool = False
    ) -> Uints:
        a, b, c = triple
        _check_alike(a, left)
        _check_alike(b, right)
        if check_product(a, b, transposed=transposed) != c.shape or c.dtype != np.uint64:
            raise BadInput("the parts of the triple do not fit together")
        out = np.array(c)
        # left (B + right) for the first party, left B for the other: two products either way.
        self.product(left, self.combine(b, right) if first else b, transposed=transposed, onto=out)
        return self.product(a, right, transposed=transposed, onto=out)

    def truncate(self, share: Uints, bits: int, *, first: bool) -> Uints:
        check_matrix(share)
        if share.ndim == 3:
            return self._wide.truncate(share, bits, first=first)
        if not isinstance(bits, int) or not 0 <= bits < 64:
            raise BadInput("truncation by 0 to 63 bits")
        signed = share.view(np.int64) if share.flags.c_contiguous else np.ascontiguousarray(share).view(np.int64)
        return (signed >> bits if first else -(-signed >> bits)).view(np.uint64)

    def _multiply(self, a: Uints, b: Uints, transposed: bool, out: Uints) -> None:
        """Out += the product; all C-contiguous and of fitting shapes."""
        if a.ndim == 2:
            out += (a.T if transposed else a) @ b
            return
        # Limbs of 16 bits as doubles would limit the length of a sum; 64-bit words of 16-bit limbs take 2^32 terms.
        left = [_limb(np.swapaxes(a, 0, 1) if transposed else a, i) for i in range(_LIMBS)]
        right = [_limb(b, i) for i in range(_LIMBS)]
        for i, x in enumerate(left):
            for j, y in enumerate(right[: _LIMBS - i]):
                part = np.stack([x @ y, np.zeros(out.shape[:2], np.uint64)], axis=-1)
                out[...] = self._wide.add(out, _shifted(part[..., 0], 16 * (i + j)))


def _limb(matrix: Uints, index: int) -> Uints:
    word, at = divmod(16 * index, 64)
    return matrix[..., word] >> np.uint64(at) & np.uint64(0xFFFF)


def _shifted(values: Uints, by: int) -> Uints:
    """Values times 2^by in two words, 0 <= by < 128."""
    word, at = divmod(by, 64)
    low = values << np.uint64(at)
    if word:
        return np.stack([np.zeros_like(low), low], axis=-1)
    high = values >> np.uint64(64 - at) if at else np.zeros_like(low)
    return np.stack([low, high], axis=-1)


def check_matrix(matrix: Uints) -> None:
    """Refuse what is no matrix of either ring."""
    if not is_array(matrix, np.uint64) or matrix.ndim not in (2, 3) or (matrix.ndim == 3 and matrix.shape[2] != 2):
        raise BadInput("a matrix is uint64 of shape (rows, cols) or (rows, cols, 2)")


def check_product(a: Uints, b: Uints, *, transposed: bool, onto: Uints | None = None) -> tuple[int, ...]:
    """The shape of the product; refuses operands and `onto` that do not fit."""
    check_matrix(a)
    check_matrix(b)
    if a.ndim != b.ndim or b.shape[0] != a.shape[0 if transposed else 1]:
        raise BadInput("the matrices do not fit together")
    if max(*a.shape, *b.shape) >= 1 << 30:
        raise BadInput("a matrix has fewer than 2^30 rows and columns")
    shape = (a.shape[1 if transposed else 0], *b.shape[1:])
    if onto is not None and (
        not is_array(onto, np.uint64) or onto.shape != shape or not onto.flags.c_contiguous or not onto.flags.writeable
        or np.may_share_memory(onto, a) or np.may_share_memory(onto, b)
    ):  # fmt: skip
        raise BadInput("onto must have the result's shape, be writeable, contiguous and apart from the operands")
    return shape


def _check_alike(a: Uints, b: Uints) -> None:
    check_matrix(a)
    check_matrix(b)
    if a.shape != b.shape:
        raise BadInput("the matrices have different shapes")
