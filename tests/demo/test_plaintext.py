"""The comparison without protection."""

import pytest

pytest.importorskip("sklearn")

from gateway.components import rows
from gateway.demo import data, plaintext


@pytest.fixture(scope="module")
def halves():
    return data.split(data.read_source())


def ids(halves, seed="2026"):
    common = sorted({row["id"] for row in halves.bank} & {row["id"] for row in halves.payment})
    test = set(rows.choose_test_rows(len(common), 0.3, seed))
    return [common[i] for i in range(800) if i not in test], [common[i] for i in sorted(test)]


def test_the_other_sides_columns_make_the_model_better(halves):
    train, test = ids(halves)
    found = plaintext.compare(halves, train_ids=train, test_ids=test)
    assert found.rows == 240
    assert 0.5 < found.bank_only.auc < found.joint.auc < 1
    assert found.joint.auc - found.bank_only.auc > 0.03
    assert 0 < found.joint.ks < 1


def test_the_figures_do_not_depend_on_the_order_of_the_rows(halves):
    train, test = ids(halves)
    one = plaintext.compare(halves, train_ids=train, test_ids=test)
    other = plaintext.compare(halves, train_ids=train[::-1], test_ids=test[::-1])
    assert other.joint.auc == pytest.approx(one.joint.auc, abs=1e-4)


def test_curves_go_from_corner_to_corner(halves):
    train, test = ids(halves)
    found = plaintext.compare(halves, train_ids=train, test_ids=test)
    for figures in (found.joint, found.bank_only):
        assert (figures.curve[0]["fpr"], figures.curve[0]["tpr"]) == (0, 0)
        assert (figures.curve[-1]["fpr"], figures.curve[-1]["tpr"]) == (1, 1)


def test_a_customer_of_one_side_only_cannot_be_used(halves):
    train, test = ids(halves)
    alone = next(row["id"] for row in halves.bank if row["id"] not in {other["id"] for other in halves.payment})
    with pytest.raises(KeyError):
        plaintext.compare(halves, train_ids=[*train, alone], test_ids=test)
