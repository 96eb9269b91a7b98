"""The public numbers of a training run: step, momentum and polynomial, each rounded to fixed point once.

Both parties and the plaintext twin (`plaintext.py`) work with exactly these integers.
"""

import math
from dataclasses import dataclass
from typing import Final

from gateway.errors import CallerError, Kind
from gateway.operators.lr.params import LrParams

CONSTANT_BITS: Final = 24
"""Fractional bits of polynomial coefficients, decay and momentum."""

CUBE_BITS: Final = 20
"""Fractional bits of the prediction where it is cubed: 60 of the ring's 128 bits, so that truncating a cube fails with
probability 2^-58 while |z| < 8."""

INTERVAL: Final = 5.0
Q0: Final = 0.5
Q1: Final = 0.198326
Q3: Final = -0.004473
"""sigmoid(z) ~ Q0 + Q1 z + Q3 z^3, the least-squares cubic on [-5, 5]; off by at most 0.06 there."""

_GAIN_MANTISSA_BITS: Final = 16

_MAX_TRUNCATION: Final = 63
"""Bits that accel.kernels.Ring128 truncates at once."""


@dataclass(frozen=True, slots=True)
class Plan:
    """q1, q3, decay, momentum: fixed point with CONSTANT_BITS. gain: fixed point with gain_bits.

    One iteration, from the extrapolated weights v (Nesterov, constant momentum for strongly convex functions):
    w' = decay * v - gain * X^T e (the intercept is not decayed), v' = w' + momentum * (w' - w).
    """

    params: LrParams
    rows: int
    q1: int
    q3: int
    decay: int
    momentum: int
    gain: int
    gain_bits: int


def make_plan(params: LrParams, *, rows: int, curvature: int) -> Plan:
    """From the sum of both parties' curvatures (mean squared row norms), which bounds ||X||_2^2 / rows.

    The objective 0.5 ||w||^2 + C sum(loss) has a Hessian of at most L = 1 + C Q1 ||X||_2^2 (the polynomial's slope is
    nowhere above Q1) and at least 1 on the penalised weights; step 1/L, momentum (sqrt L - 1)/(sqrt L + 1).
    Raises CallerError where the step is too small for the fixed point: the data are too large for feature_bits.
    """
    c = params.inverse_penalty
    steepest = 1 + c * Q1 * rows * curvature
    root = math.sqrt(steepest)
    gain = c / steepest
    gain_bits = _GAIN_MANTISSA_BITS - 1 - math.floor(math.log2(gain))
    if params.feature_bits + gain_bits > _MAX_TRUNCATION:
        raise CallerError("too many rows and attributes for these feature_bits: the step vanishes", kind=Kind.MALFORMED)
    one = 1 << CONSTANT_BITS
    return Plan(
        params=params,
        rows=rows,
        q1=round(Q1 * one),
        q3=round(Q3 * one),
        decay=round((1 - 1 / steepest) * one),
        momentum=round((root - 1) / (root + 1) * one),
        gain=round(gain * 2.0**gain_bits),
        gain_bits=gain_bits,
    )
