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

    Rounding enters as stated in docs/operators/hetero_lr.md: in each iteration at most r into each residual, 2 ulp into
    each weight and 1 ulp more into each extrapolated weight (ulp = 2^-value_bits). What enters in iteration j reaches
    the weights through the derivative of all later iterations, a product of matrices taken along the twin's own run;
    the bound is the sum of the absolute entries of these products times the errors. Terms of second order in the error
    are left out; the tenth added to the result is far above them as long as the bound itself is below 1e-2.
    """
    params = plan.params
    ulp = 2.0**-params.value_bits
    cube_ulp = 2.0**-CUBE_BITS
    q1, q3, mu, gain = plan.q1 / _ONE, plan.q3 / _ONE, plan.momentum / _ONE, plan.gain / 2.0**plan.gain_bits
    d = X.shape[1]
    total = np.zeros(d)
    # Later iterations' effect on the final w of an error in (w, v) now; goes backwards from the last iteration.
    from_w, from_v = np.eye(d), np.zeros((d, d))
    for z in reversed(predictions):
        # w' = T(v), v' = (1 + mu) w' - mu w: an error in w' counts through both.
        through = from_w + (1 + mu) * from_v
        entry = ulp + np.abs(q3) * 3 * z**2 * cube_ulp + np.abs(q3) * ulp
        residual = (q1 + 3 * np.abs(q3) * z**2) * ulp + entry
        total += np.abs(through @ (gain * X.T)) @ residual
        total += np.abs(through).sum(axis=1) * 2 * ulp + np.abs(from_v).sum(axis=1) * ulp
        slope = q1 + 3 * q3 * z**2
        step = np.diag(decay) - gain * (X.T * slope) @ X
        from_w, from_v = -mu * from_v, through @ step
    return total * 1.1


def _dense(matrix: LrMatrix, bits: int) -> Floats:
    sparse = matrix.quantised(bits)
    out = np.zeros((matrix.rows, matrix.cols))
    row_of = np.repeat(np.arange(matrix.rows), np.diff(matrix.indptr))
    out[row_of, sparse.indices] = sparse.values / 2.0**bits
    return out
