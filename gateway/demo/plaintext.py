"""What the same model would be without any protection: scikit-learn on the pooled columns, to compare with.

Same rows, same split, same encoding (gateway/components/encoding.py), same L2 penalty as the joint job. The demo can do
this because it plays both institutions; neither of them could. Figures are of the held-out rows.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from gateway.components import encoding, metrics
from gateway.demo.data import BANK_COLUMNS, ID, LABEL, PAYMENT_COLUMNS, POSITIVE, Halves, Row

C: Final = 0.02
"""Inverse strength of the L2 penalty as scikit-learn counts it: C * (sum of losses) + |w|^2 / 2, bias not penalised."""
CURVE_POINTS: Final = 400


@dataclass(frozen=True, slots=True)
class Figures:
    """AUC, KS and curve (points as metrics.points gives them) of one model on the held-out rows."""

    auc: float
    ks: float
    curve: Sequence[Mapping[str, float | None]]

    def to_json(self) -> dict[str, Any]:
        return {"auc": self.auc, "ks": self.ks, "curve": list(self.curve)}


@dataclass(frozen=True, slots=True)
class Comparison:
    """The two models without protection. rows: held-out rows."""

    joint: Figures
    bank_only: Figures
    rows: int


def compare(
    halves: Halves, *, train_ids: Sequence[str], test_ids: Sequence[str], inverse_penalty: float = C
) -> Comparison:
    """Train on the customers `train_ids`, judge on `test_ids`; KeyError where a customer is not on both sides."""
    bank = {row[ID]: row for row in halves.bank}
    payment = {row[ID]: row for row in halves.payment}
    rows = {number: {**payment[number], **bank[number]} for number in (*train_ids, *test_ids)}
    train, test = [rows[number] for number in train_ids], [rows[number] for number in test_ids]
    return Comparison(
        joint=_figures(train, test, (*BANK_COLUMNS, *PAYMENT_COLUMNS), inverse_penalty),
        bank_only=_figures(train, test, BANK_COLUMNS, inverse_penalty),
        rows=len(test),
    )


def _figures(train: Sequence[Row], test: Sequence[Row], columns: Sequence[str], inverse_penalty: float) -> Figures:
    fitted = encoding.fit(_columns(train, columns))
    model = LogisticRegression(C=inverse_penalty, solver="lbfgs", tol=1e-8, max_iter=10_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model.fit(fitted.apply(_columns(train, columns)), _labels(train))
    scores = model.predict_proba(fitted.apply(_columns(test, columns)))[:, 1]
    curve = metrics.curve(_labels(test), scores)
    return Figures(metrics.auc(curve), metrics.ks(curve)[0], metrics.points(curve, CURVE_POINTS))


def _columns(rows: Sequence[Row], columns: Sequence[str]) -> dict[str, list[str]]:
    return {column: [row[column] for row in rows] for column in columns}


def _labels(rows: Sequence[Row]) -> NDArray[np.int64]:
    return encoding.encode_label([row[LABEL] for row in rows], POSITIVE)
