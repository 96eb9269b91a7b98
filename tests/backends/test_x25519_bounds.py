"""The largest value of every digit in the eight-lane X25519 (accel/notes/x25519.md), followed through its steps.

A digit is an integer no smaller than any that the code can hold there; the functions mirror accel/csrc/f25519_ifma.h
and x25519_ifma.c line by line and fail where a register could overflow, a difference go below zero or a factor be
cut off.
"""

from dataclasses import dataclass

P = 2**255 - 19
LOW = 2**52 - 1
TOP = 2**47 - 1
BIAS = tuple(1024 * digit for digit in (2**52 - 19, LOW, LOW, LOW, TOP))
ZERO = (0,) * 5
Digits = tuple[int, ...]


@dataclass(frozen=True)
class Operand:
    """What the multiplier sees of a settled number."""

    digits: Digits


def held(digits: list[int]) -> Digits:
    assert all(digit < 2**64 for digit in digits)
    return tuple(digits)


def lo(x: int, y: int) -> int:
    assert x <= LOW
    assert y <= LOW
    return min(x * y, LOW)


def hi(x: int, y: int) -> int:
    assert x <= LOW
    assert y <= LOW
    return x * y >> 52


def settle(a: Digits) -> Operand:
    d = [a[0] + lo(a[4] >> 47, 19), *a[1:4], min(a[4], TOP)]
    for i in range(4):
        held(d)
        d[i + 1] += d[i] >> 52
    assert d[4] <= LOW
    return Operand((*(min(digit, LOW) for digit in d[:4]), held(d)[4]))


def add(a: Digits, b: Digits) -> Digits:
    return held([x + y for x, y in zip(a, b, strict=True)])


def sub(a: Digits, b: Digits) -> Digits:
    """`a` is biased: its digits are at least BIAS."""
    assert all(x >= y for x, y in zip(BIAS, b, strict=True))
    return a


def reduce(z: list[int]) -> Digits:
    for i in range(5, 9):
        z[i + 1] += z[i] >> 52
    held(z)
    assert 608 * z[9] <= LOW
    seen = [min(column, LOW) for column in z]
    return held([z[i] + lo(seen[i + 5], 608) + (hi(seen[i + 4], 608) if i else 0) for i in range(5)])


def product(a: Operand, b: Operand, start: Digits) -> Digits:
    z = [*start, *ZERO]
    for i in range(5):
        for j in range(5):
            z[i + j] += lo(a.digits[i], b.digits[j])
            z[i + j + 1] += hi(a.digits[i], b.digits[j])
    return reduce(z)


def square(a: Operand, start: Digits) -> Digits:
    assert all(digit % 2 == 0 for digit in start)
    z = [start[0], *(digit // 2 for digit in start[1:]), *ZERO]
    for i in range(3):
        for j in range(i + 1, 4):
            z[i + j] += lo(a.digits[i], a.digits[j])
            z[i + j + 1] += hi(a.digits[i], a.digits[j])
    z[1:7] = [2 * column for column in held(z)[1:7]]
    for i in range(5):
        z[2 * i] += lo(a.digits[i], a.digits[i])
        z[2 * i + 1] += hi(a.digits[i], a.digits[i])
    for i in range(4):
        z[i + 4] += lo(a.digits[i], 2 * a.digits[4])
        z[i + 5] += hi(a.digits[i], 2 * a.digits[4])
    return reduce(z)


def add_scaled(a: Digits, b: Operand) -> Digits:
    d = [*a, 0]
    for i in range(5):
        d[i] += lo(b.digits[i], 121665)
        d[i + 1] += hi(b.digits[i], 121665)
    d[0] += lo(d[5], 608)
    return held(d[:5])


def times_u(a: Operand, u: Operand) -> Digits:
    z = [0] * 6
    for i in range(5):
        for j in range(5):
            z[j] += lo(a.digits[i], u.digits[j])
            z[j + 1] += hi(a.digits[i], u.digits[j])
    z[0] += lo(min(z[5], LOW), 608)
    z[1] += hi(z[5], 608)
    return held(z[:5])


def widest(*numbers: Digits) -> Digits:
    return tuple(max(digits) for digits in zip(*numbers, strict=True))


def test_the_bias_is_a_multiple_of_p() -> None:
    assert sum(digit << 52 * i for i, digit in enumerate(BIAS)) % P == 0


def test_no_digit_of_a_ladder_step_overflows() -> None:
    """Every operand is taken as large as that of the largest number there is, so one step stands for all."""
    loaded = (LOW, LOW, LOW, LOW, TOP)
    u = settle((0, *loaded[:4]))
    anything = settle((2**63,) * 5)
    assert anything.digits[4] < 2**47 + 2**12
    raw, lifted = product(anything, anything, ZERO), product(anything, anything, BIAS)
    raw, lifted = widest(raw, square(anything, ZERO)), widest(lifted, square(anything, BIAS), add(loaded, BIAS))
    z3 = times_u(anything, u)
    assert max(raw) < 2**55.4
    for sent in (add(lifted, widest(raw, z3)), sub(lifted, widest(raw, z3)), add_scaled(lifted, anything)):
        assert max(sent) < 2**63
        settle(sent)


def test_sums_of_three_products_may_be_subtracted_from_differences() -> None:
    """What group25519_algos.h asks for."""
    anything = settle((2**63,) * 5)
    raw = widest(product(anything, anything, ZERO), square(anything, ZERO))
    three = add(raw, add(raw, raw))
    once = sub(add(three, BIAS), three)
    twice = sub(add(once, BIAS), three)
    assert max(twice) < 2**63 + 2**58
    settle(add(twice, three))


def test_two_rounds_bring_any_number_below_two_to_the_255() -> None:
    once = settle((2**63,) * 5).digits
    # Either nothing lay above 2^255 and nothing changes, or what is left of digit 4 has room for every carry.
    assert once[4] >> 47 <= 1
    assert once[4] - 2**47 + 1 < 2**47
