"""The plain functions of the components: split, encoding, figures."""

import hashlib
import json

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics  # type: ignore[import-untyped]

from gateway.components import metrics
from gateway.components.encoding import CLIP, EncodingError, as_numbers, encode_label, fit
from gateway.components.model import ModelPart
from gateway.components.rows import alignment, choose_test_rows, derived_alignment
from gateway.operators.lr.params import LrParams
from gateway.sdk.result import ComponentError


def test_a_stored_model_is_checked_before_use() -> None:
    part = ModelPart("guest.0", ("x",), (0.5,), 0.25, LrParams(iterations=7))
    stored = json.loads(json.dumps(part.to_json()))
    assert ModelPart.from_json(stored) == part
    for change in (
        {"params": {"value_bits": 200}},
        {"params": {"iterations": "many"}},
        {"params": {"speed": 1}},
        {"weights": [10**400]},
        {"weights": [float("nan")]},
        {"weights": []},
        {"features": [1]},
    ):
        with pytest.raises(ComponentError, match="no part of a hetero_lr model"):
            ModelPart.from_json({**stored, **change})


def test_split_follows_its_definition() -> None:
    seed = hashlib.sha256(b"seed").digest()
    keys = {
        row: hashlib.sha256(b"interconn.split.1\x00" + seed + row.to_bytes(8, "little")).digest() for row in range(10)
    }
    assert choose_test_rows(10, 0.3, "seed") == sorted(sorted(range(10), key=keys.__getitem__)[:3])
    # A known answer, so that no later change moves anybody's test rows.
    assert choose_test_rows(10, 0.3, "interconn") == KNOWN_SPLIT


KNOWN_SPLIT = [2, 6, 9]


@pytest.mark.parametrize(
    ("count", "fraction", "size"), [(2, 0.01, 1), (2, 0.99, 1), (10, 0.25, 3), (10, 0.24, 2), (800, 0.3, 240)]
)
def test_split_sizes(count: int, fraction: float, size: int) -> None:
    chosen = choose_test_rows(count, fraction, "x")
    assert len(chosen) == size
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(range(count))
    assert choose_test_rows(1000, 0.5, "a") != choose_test_rows(1000, 0.5, "b")


def test_too_few_rows_to_split() -> None:
    with pytest.raises(ValueError):
        choose_test_rows(1, 0.5, "x")


def test_alignment_tags() -> None:
    assert alignment({"alignment": "ab"}) == "ab"
    assert alignment({}) == alignment({"alignment": 7}) == alignment({"alignment": "x" * 65}) == ""
    tags = {derived_alignment("ab", "split", "seed", 0.3, part) for part in ("train", "test")}
    tags |= {derived_alignment("ab", "split", "seed", 0.4, "test"), derived_alignment("", "split", "seed", 0.3, "test")}
    assert len(tags) == 4


TRAIN = {
    "age": ["20", "30", "40"],
    "job": ["b", "a", "b"],
    "same": ["0.1", "0.1", "0.1"],
    "year": ["1", "2", "1"],
    "": ["", "1", ""],
}


def test_encoding() -> None:
    fitted = fit(TRAIN, categorical=["year"])
    assert fitted.features == ("age", "job=a", "job=b", "same", "year=1", "year=2", "=", "=1")
    encoded = fitted.apply(TRAIN)
    assert encoded.shape == (3, 8)
    assert np.allclose(encoded[:, 0], [-np.sqrt(1.5), 0, np.sqrt(1.5)])
    assert encoded[:, 1:3].tolist() == [[0, 1], [1, 0], [0, 1]]
    assert encoded[:, 3].tolist() == [0, 0, 0]
    later = {"age": ["1e9", "-1e9"], "job": ["zzz", "a"], "same": ["0.1", "0.1"], "year": ["3", "2"], "": ["", "2"]}
    assert fitted.apply(later).tolist() == [[CLIP, 0, 0, 0, 0, 0, 1, 0], [-CLIP, 1, 0, 0, 0, 1, 0, 0]]
    assert json.loads(json.dumps(fitted.to_json()))[1] == {"name": "job", "kind": "one-hot", "levels": ["a", "b"]}


def test_encoding_errors_name_the_column() -> None:
    fitted = fit(TRAIN)
    with pytest.raises(EncodingError, match="'age' is numeric"):
        fitted.apply({**TRAIN, "age": ["20", "young", "40"]})
    with pytest.raises(EncodingError, match="'job' is missing"):
        fitted.apply({name: values for name, values in TRAIN.items() if name != "job"})
    with pytest.raises(EncodingError, match="'id' has 3 distinct"):
        fit({"id": ["a", "b", "c"]}, max_levels=2)
    with pytest.raises(EncodingError, match="no training rows"):
        fit({"id": []})


def test_numbers_and_labels() -> None:
    assert as_numbers(["1", " 2.5 ", "-1e3"]) is not None
    for text in ("nan", "inf", "", "1,5", "x"):
        assert as_numbers(["1", text]) is None
    assert encode_label(["bad", "good", "Bad"], "bad").tolist() == [1, 0, 0]
    assert fit({}).apply({}).shape == (0, 0)


@pytest.mark.parametrize("ties", [False, True])
def test_figures_agree_with_scikit_learn(ties: bool) -> None:
    random = np.random.default_rng(7)
    labels = random.integers(0, 2, 500)
    scores = random.normal(size=500) + labels
    if ties:
        scores = scores.round(0)
    roc = metrics.curve(labels, scores)
    assert metrics.auc(roc) == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12)
    fpr, tpr, _ = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    assert np.allclose(roc.fpr, fpr)
    assert np.allclose(roc.tpr, tpr)
    distance, at = metrics.ks(roc)
    assert distance == pytest.approx(np.max(tpr - fpr))
    table = metrics.confusion(labels, scores, at)
    tn, fp, fn, tp = sklearn_metrics.confusion_matrix(labels, scores >= at).ravel()
    assert [table[key] for key in ("true_negative", "false_positive", "false_negative", "true_positive")] == [
        tn,
        fp,
        fn,
        tp,
    ]
    assert table["f1"] == pytest.approx(sklearn_metrics.f1_score(labels, scores >= at))
    assert table["true_positive"] / labels.sum() - table["false_positive"] / (1 - labels).sum() == pytest.approx(
        distance
    )


def test_lift_and_points() -> None:
    labels = np.array([1, 1, 0, 1, 0, 0, 0, 0, 0, 0])
    scores = np.arange(10, 0, -1) / 10
    table = metrics.lift(labels, scores, 5)
    assert [row["positives"] for row in table] == [2, 1, 0, 0, 0]
    assert [round(row["lift"], 3) for row in table] == [3.333, 1.667, 0, 0, 0]
    assert table[-1]["cumulative_lift"] == pytest.approx(1)
    assert len(metrics.lift(labels, scores, 20)) == 10
    roc = metrics.curve(labels, scores)
    few = metrics.points(roc, 4)
    assert (few[0]["threshold"], few[0]["tpr"], few[-1]["tpr"], len(few)) == (None, 0, 1, 4)
    json.dumps(metrics.evaluate(labels, scores, threshold=0.5, groups=10, curve_points=10), allow_nan=False)


@pytest.mark.parametrize(
    ("labels", "scores"),
    [([1, 1], [0.1, 0.2]), ([0, 2], [0.1, 0.2]), ([0, 1], [0.1, np.nan]), ([], []), ([0, 1], [0.1])],
)
def test_figures_need_sound_columns(labels: list[int], scores: list[float]) -> None:
    with pytest.raises(ValueError):
        metrics.curve(np.array(labels, dtype=np.int64), np.array(scores))
