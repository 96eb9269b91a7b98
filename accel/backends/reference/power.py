"""Modular powers by gmpy2, one call for each number."""

import gmpy2

from accel.backends.reference.modular import plain_rows, to_limbs, to_mpz
from accel.kernels import BadInput, Uints


class GmpPower:
    """ModularPower by gmpy2; not constant in time, `secret` or not."""

    name = "reference"

    def __init__(self, *, threads: int = 1) -> None:
        del threads

    def __repr__(self) -> str:
        return "GmpPower()"

    def power(self, modulus: int, bases: Uints, exponents: Uints, *, secret: bool = True) -> Uints:  # noqa: ARG002
        values = check_residues(modulus, bases)
        if len(exponents) not in (1, len(bases)):
            raise BadInput("one exponent for all, or one for each base")
        powers = [to_mpz(row) for row in plain_rows(exponents)]
        if len(powers) != len(values):
            powers *= len(values)
        n = gmpy2.mpz(modulus)
        return to_limbs([gmpy2.powmod(x, e, n) for x, e in zip(values, powers, strict=True)], modulus.bit_length())

    def multiply(self, modulus: int, a: Uints, b: Uints) -> Uints:
        left, right = check_residues(modulus, a), check_residues(modulus, b)
        if len(left) != len(right):
            raise BadInput("the batches have different lengths")
        return to_limbs([x * y % modulus for x, y in zip(left, right, strict=True)], modulus.bit_length())


def check_modulus_of_batch(modulus: int) -> None:
    """Refuse a modulus outside the contract."""
    if not 3 <= modulus < 1 << 8192 or modulus % 2 == 0:
        raise BadInput("a modulus must be odd, at least 3 and of at most 8192 bits")


def check_residues(modulus: int, batch: Uints) -> list[gmpy2.mpz]:
    """The numbers of a plain batch, all below the modulus."""
    check_modulus_of_batch(modulus)
    values = [to_mpz(row) for row in plain_rows(batch)]
    if any(value >= modulus for value in values):
        raise BadInput("a base is not below the modulus")
    return values
