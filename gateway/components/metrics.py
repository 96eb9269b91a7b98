"""Figures of a binary score: AUC, KS, lift, confusion tables and the points of the curves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curve:
    """One point for each distinct score, descending, plus the origin: what is found when that score is the threshold.

    thresholds: inf at the origin; tpr, fpr: shares of the positives and of the negatives at or above the threshold.
    """

    thresholds: Floats
    tpr: Floats
    fpr: Floats


def curve(labels: NDArray[np.int64], scores: Floats) -> Curve:
    """ROC of scores, shape (rows,), against labels 0 and 1. Raises ValueError unless both labels occur."""
    if labels.shape != scores.shape or labels.ndim != 1 or not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 or 1, one for each score")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    positives = int(labels.sum())
    if not 0 < positives < len(labels):
        raise ValueError("both labels, 0 and 1, must occur")
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], np.cumsum(labels[order])
    last = np.append(np.nonzero(np.diff(sorted_scores))[0], len(labels) - 1)
    tpr = np.concatenate([[0.0], hits[last] / positives])
    fpr = np.concatenate([[0.0], (last + 1 - hits[last]) / (len(labels) - positives)])
    return Curve(np.concatenate([[np.inf], sorted_scores[last]]), tpr, fpr)


def auc(roc: Curve) -> float:
    """Area under the curve by trapezoids: ties count one half."""
    return float(np.sum(np.diff(roc.fpr) * (roc.tpr[1:] + roc.tpr[:-1]) / 2))


def ks(roc: Curve) -> tuple[float, float]:
    """Largest distance of tpr and fpr, and the threshold where it is (the highest, if several)."""
    at = int(np.argmax(roc.tpr[1:] - roc.fpr[1:])) + 1
    return float(roc.tpr[at] - roc.fpr[at]), float(roc.thresholds[at])


def confusion(labels: NDArray[np.int64], scores: Floats, threshold: float) -> Mapping[str, float]:
    """Counts and the usual ratios when scores >= threshold count as positive; a ratio without cases is 0."""
    guess = scores >= threshold
    tp, fp = int(np.sum(guess & (labels == 1))), int(np.sum(guess & (labels == 0)))
    fn, tn = int(np.sum(~guess & (labels == 1))), int(np.sum(~guess & (labels == 0)))
    precision, recall = tp / max(tp + fp, 1), tp / max(tp + fn, 1)
    return {
        "threshold": threshold,
        "true_positive": tp,
        "false_positive": fp,
        "false_negative": fn,
        "true_negative": tn,
        "accuracy": (tp + tn) / len(labels),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if tp else 0.0,
    }


def lift(labels: NDArray[np.int64], scores: Floats, groups: int) -> list[Mapping[str, float]]:
    """Rows in descending order of score, cut into `groups` of equal size (as far as possible).

    lift: share of positives in the group over the share in all rows; cumulative_lift: the same for the groups so far.
    """
    order = np.argsort(-scores, kind="stable")
    base = float(labels.mean())
    table: list[Mapping[str, float]] = []
    hits = rows = 0
    for number, part in enumerate(np.array_split(labels[order], min(groups, len(labels))), 1):
        hits, rows = hits + int(part.sum()), rows + len(part)
        table.append(
            {
                "group": number,
                "rows": len(part),
                "positives": int(part.sum()),
                "lift": float(part.mean()) / base,
                "cumulative_lift": hits / rows / base,
            }
        )
    return table


def points(roc: Curve, most: int) -> list[Mapping[str, float | None]]:
    """At most `most` points of the curve, ends included; the threshold of the origin is null."""
    chosen = np.unique(np.linspace(0, len(roc.tpr) - 1, min(most, len(roc.tpr))).round().astype(np.int64))
    return [
        {
            "threshold": float(roc.thresholds[at]) if np.isfinite(roc.thresholds[at]) else None,
            "fpr": float(roc.fpr[at]),
            "tpr": float(roc.tpr[at]),
            "ks": float(roc.tpr[at] - roc.fpr[at]),
        }
        for at in chosen
    ]


def evaluate(
    labels: NDArray[np.int64], scores: Floats, *, threshold: float, groups: int, curve_points: int
) -> Mapping[str, Any]:
    """All figures, ready for JSON. Raises ValueError as `curve` does."""
    roc = curve(labels, scores)
    distance, at = ks(roc)
    return {
        "rows": len(labels),
        "positives": int(labels.sum()),
        "auc": auc(roc),
        "ks": distance,
        "ks_threshold": at,
        "confusion": {"threshold": confusion(labels, scores, threshold), "ks": confusion(labels, scores, at)},
        "lift": lift(labels, scores, groups),
        "curve": points(roc, curve_points),
    }
