"""Modular powers by gmpy2, one call for each number."""

import gmpy2

from accel import kernels
from accel.backends.reference.group import check_fits, check_segments, segment_products
from accel.backends.reference.modular import Residues, plain_rows, power_matvec, to_limbs, to_mpz
from accel.kernels import BadInput, Ints, ModularRing, SparseMatrix, Uints


class PowerByRing:
    """ModularPower where everything is done by what `ring` gives."""

    def ring(self, modulus: int) -> ModularRing:
        raise NotImplementedError

    def power(self, modulus: int, bases: Uints, exponents: Uints, *, secret: bool = True) -> Uints:
        ring = self.ring(modulus)
        return ring.dump(ring.power(ring.load(bases), exponents, secret=secret))

    def multiply(self, modulus: int, a: Uints, b: Uints) -> Uints:
        ring = self.ring(modulus)
        if len(a) != len(b):
            raise BadInput("the batches have different lengths")
        return ring.dump(ring.multiply(ring.load(a), ring.load(b)))

    def square(self, modulus: int, a: Uints) -> Uints:
        ring = self.ring(modulus)
        return ring.dump(ring.square(ring.load(a)))

    def invert(self, modulus: int, a: Uints) -> Uints:
        ring = self.ring(modulus)
        return ring.dump(ring.invert(ring.load(a)))


class GmpPower(PowerByRing):
    """ModularPower by gmpy2; not constant in time, `secret` or not."""

    name = "reference"

    def __init__(self, *, threads: int = 1) -> None:
        del threads

    def __repr__(self) -> str:
        return "GmpPower()"

    def ring(self, modulus: int) -> "GmpRing":
        return GmpRing(modulus)


class GmpRing:
    """ModularRing by gmpy2, in no special form."""

    name = "reference"

    def __init__(self, modulus: int) -> None:
        check_modulus_of_batch(modulus)
        self.modulus = modulus

    def __repr__(self) -> str:
        return f"GmpRing({self.modulus.bit_length()} bits)"

    def load(self, plain: Uints) -> Residues:
        return Residues(check_residues(self.modulus, plain), self.modulus)

    def dump(self, a: kernels.Residues) -> Uints:
        return to_limbs(self._own(a), self.modulus.bit_length())

    def multiply(self, a: kernels.Residues, b: kernels.Residues) -> Residues:
        left, right = self._own(a), self._own(b)
        if len(left) != len(right):
            if 1 not in (len(left), len(right)):
                raise BadInput("the batches have different lengths")
            count = max(len(left), len(right)) if left and right else 0
            left, right = (part * count if len(part) == 1 else part for part in (left, right))
        return self._made([x * y % self.modulus for x, y in zip(left, right, strict=True)])

    def square(self, a: kernels.Residues, times: int = 1) -> Residues:
        if not isinstance(times, int) or times < 1:
            raise BadInput("at least one squaring")
        return self._made([gmpy2.powmod(x, gmpy2.mpz(1) << times, self.modulus) for x in self._own(a)])

    def power(self, a: kernels.Residues, exponents: Uints, *, secret: bool = True) -> Residues:  # noqa: ARG002
        values = self._own(a)
        if len(exponents) not in (1, len(values)):
            raise BadInput("one exponent for all, or one for each base")
        powers = [to_mpz(row) for row in plain_rows(exponents)]
        if len(powers) != len(values):
            powers *= len(values)
        return self._made([gmpy2.powmod(x, e, self.modulus) for x, e in zip(values, powers, strict=True)])

    def invert(self, a: kernels.Residues) -> Residues:
        try:
            return self._made([gmpy2.invert(x, self.modulus) for x in self._own(a)])
        except ZeroDivisionError:
            raise BadInput("not invertible") from None

    def products(self, a: kernels.Residues, index: Ints, starts: Ints) -> Residues:
        values = self._own(a)
        check_segments(len(values), index, starts)
        return self._made(segment_products(values, index, starts, self.modulus))

    def matvec(self, matrix: SparseMatrix, a: kernels.Residues) -> Residues:
        bases = self._own(a)
        check_fits(matrix, len(bases))
        try:
            return self._made(power_matvec(matrix, bases, gmpy2.mpz(self.modulus)))
        except ZeroDivisionError:
            raise BadInput("not invertible") from None

    def _own(self, a: kernels.Residues) -> list[gmpy2.mpz]:
        if not isinstance(a, Residues) or a.modulus != self.modulus:
            raise BadInput("residues of another modulus or backend")
        return a.values

    def _made(self, values: list[gmpy2.mpz]) -> Residues:
        return Residues(values, self.modulus)


def check_modulus_of_batch(modulus: int) -> None:
    """Refuse a modulus outside the contract."""
    # gmpy2's integers serve as well as Python's.
    if not isinstance(modulus, int | gmpy2.mpz) or not 3 <= modulus < 1 << 8192 or modulus % 2 == 0:
        raise BadInput("a modulus must be odd, at least 3 and of at most 8192 bits")


def check_residues(modulus: int, batch: Uints) -> list[gmpy2.mpz]:
    """The numbers of a plain batch, all below the modulus."""
    check_modulus_of_batch(modulus)
    values = [to_mpz(row) for row in plain_rows(batch)]
    if any(value >= modulus for value in values):
        raise BadInput("a base is not below the modulus")
    return values
