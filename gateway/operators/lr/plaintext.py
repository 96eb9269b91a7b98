"""The same algorithm in floating point on pooled data, and how far the secure run may be from it.

For tests and documentation: nothing that runs with a partner uses this module.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.operators.lr.matrix import LrMatrix
from gateway.operators.lr.params import LrParams
from gateway.operators.lr.plan import CONSTANT_BITS, CUBE_BITS, Q0, Plan, make_plan

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TwinResult:
    """The three parts of the model, and by how much each number may differ in the secure run."""

    guest: Floats
    intercept: float
    host: Floats
    guest_bound: Floats
    intercept_bound: float
    host_bound: Floats
    largest_prediction: float


_ONE: Final = 2.0**CONSTANT_BITS


def train(guest: LrMatrix, host: LrMatrix, labels: Floats, params: LrParams) -> TwinResult:
    """Train on both matrices at once, features rounded and constants taken as the secure run does."""
    left = guest.with_intercept()
    plan = make_plan(params, rows=guest.rows, curvature=left.curvature() + host.curvature())
    X = np.hstack([_dense(left, params.feature_bits), _dense(host, params.feature_bits)])
    decay = np.full(X.shape[1], plan.decay / _ONE)
    decay[0] = 1.0
    q1, q3, mu, gain = plan.q1 / _ONE, plan.q3 / _ONE, plan.momentum / _ONE, plan.gain / 2.0**plan.gain_bits
    w = v = np.zeros(X.shape[1])
    predictions = []
    for _ in range(params.iterations):
        z = X @ v
        predictions.append(z)
        e = Q0 + q1 * z + q3 * z**3 - labels
        after = decay * v - gain * (X.T @ e)
        w, v = after, after + mu * (after - w)
    bound = error_bound(X, predictions, decay, plan)
    largest = float(max(np.abs(z).max() for z in predictions))
    own = left.cols
    return TwinResult(
        guest=w[1:own],
        intercept=float(w[0]),
        host=w[own:],
        guest_bound=bound[1:own],
        intercept_bound=float(bound[0]),
        host_bound=bound[own:],
        largest_prediction=largest,
    )


def error_bound(X: Floats, predictions: list[Floats], decay: Floats, plan: Plan) -> Floats:
    """By how much each weight of the secure run may differ from the twin's, shape (columns,).

    The derivation is in docs/operators/hetero_lr.md. In short: an iteration maps the deviation of (w, v) by the
    derivative along the twin's own run and adds rounding; what the derivative leaves out of the cubic is bounded by the
    deviation reached so far and counted as rounding of the residual. Deviations are then linear in all roundings, and
    the bound sums absolute values of the coefficients. It holds for any signs, but for the failures of truncation.
    """
    ulp, cube_ulp = 2.0**-plan.params.value_bits, 2.0**-CUBE_BITS
    q1, q3, mu, gain = plan.q1 / _ONE, plan.q3 / _ONE, plan.momentum / _ONE, plan.gain / 2.0**plan.gain_bits
    d, steep = X.shape[1], abs(q3)
    entered: list[tuple[Floats, Floats]] = []
    """For each iteration so far: its residual roundings' bound, and how what it added to w' moved (w, v) since."""
    deviation = np.zeros(2 * d)
    for z in predictions:
        off = np.abs(X) @ deviation[d:] + ulp
        cubed = np.abs(z) + off
        residual = (
            np.abs(q1 + 3 * q3 * z**2) * ulp  # the prediction's truncation, to first order
            + steep * (3 * np.abs(z) * off**2 + off**3)  # the rest of the cubic's deviation
            + steep * (3 * cubed**2 * cube_ulp + 3 * cubed * cube_ulp**2 + cube_ulp**3)  # cubing with fewer bits
            + (steep + 1) * ulp  # truncating the cube and the residual
        )
        step = np.diag(decay) - gain * (X.T * (q1 + 3 * q3 * z**2)) @ X
        zero, eye = np.zeros((d, d)), np.eye(d)
        forward = np.block([[zero, step], [-mu * eye, (1 + mu) * step]])
        entered = [(bound, forward @ moved) for bound, moved in entered]
        # Columns: what entered w' (it counts in v' through the momentum), then what entered v' alone.
        entered.append((residual, np.block([[eye, zero], [(1 + mu) * eye, eye]])))
        deviation = sum(
            (
                np.abs(moved[:, :d] @ (gain * X.T)) @ bound
                + np.abs(moved[:, :d]).sum(axis=1) * 2 * ulp
                + np.abs(moved[:, d:]).sum(axis=1) * ulp
                for bound, moved in entered
            ),
            np.zeros(2 * d),
        )
    return deviation[:d]


def _dense(matrix: LrMatrix, bits: int) -> Floats:
    sparse = matrix.quantised(bits)
    out = np.zeros((matrix.rows, matrix.cols))
    row_of = np.repeat(np.arange(matrix.rows), np.diff(matrix.indptr))
    out[row_of, sparse.indices] = sparse.values / 2.0**bits
    return out
