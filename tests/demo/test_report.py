"""The report of a demo run: what it promises, what it counts, and that it loads nothing and trusts nothing."""

import json
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from gateway.demo import charts, report
from tests.demo.sample import BANK, PAYMENT, START, call, facts


def test_report_json_has_the_promised_members():
    told = facts().to_json()
    assert told["intersection_size"] == 800
    assert (told["auc"], told["ks"], told["bank_only_auc"], told["plaintext_auc"]) == (0.7821, 0.45, 0.7011, 0.7834)
    assert told["seconds"] == 61.0
    assert told["bytes_sent"] == {BANK: 3 << 20, PAYMENT: 200_000}
    assert told["job_id"].startswith("job-")
    assert list(told["task_ids"]) == [
        "psi_1",
        "split_1",
        "feature_encode_1",
        "hetero_lr_1",
        "hetero_lr_predict_1",
        "evaluation_1",
    ]
    assert told["ok"] is True
    json.dumps(told)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"intersection_size": 799}, "799 common customers"),
        ({"plaintext": {"auc": 0.80, "ks": 0, "curve": []}}, "further than 0.01"),
        ({"plaintext": {"auc": float("nan"), "ks": 0, "curve": []}}, "further than 0.01"),
        ({"bank_only": {"auc": 0.7821, "ks": 0, "curve": []}}, "not better"),
    ],
)
def test_a_broken_promise_is_told(changes, words):
    broken = facts(**changes)
    assert any(words in problem for problem in broken.problems())
    assert broken.to_json()["ok"] is False


def test_the_page_is_whole_and_loads_nothing():
    page = report.render(facts())
    assert not re.findall(r"""(?:src|href)\s*=|url\((?!#tip)|@import|<script|<link""", page)
    tree = ET.fromstring(page.partition("\n")[2])
    assert len(list(tree.iter("svg"))) >= 8
    for words in ("bank", "payment", "0.782", "purpose=39 &lt;b&gt;", "job-0123456789abcdef", "psi_1", "ROC", "KS"):
        assert words in page, words


def test_the_other_sides_columns_of_the_model_are_not_shown():
    weights = report._weights(facts())
    assert "purpose=39" in weights
    assert "checking" not in weights


def test_what_partners_wrote_cannot_become_markup():
    first, second = facts().parties
    page = report.render(facts(parties=(first, replace(second, name="<script>x</script>")), job_id="<img src=x>"))
    assert "<script" not in page
    assert "<img" not in page


def test_equal_calls_are_counted_and_ordered_by_first_occurrence():
    counted = report.calls(facts().events, since=START, until=START + 61_000)
    assert [(kind.route, kind.count, kind.failed) for kind in counted if kind.caller == BANK] == [
        ("node.query", 1, 0),
        ("node.contract.apply", 1, 0),
        ("dataset.audit.apply", 1, 0),
        ("job.audit.apply", 1, 0),
        ("job.create", 1, 0),
        ("task.poll", 20, 1),
    ]
    assert [kind.route for kind in counted][:3] == ["node.query", "node.contract.apply", "node.contract.confirm"]
    assert counted[0].path == "GET /v1/interconn/node/query"
    assert report.Calls("a", "b", "not.known", 0).path == "not.known"


def test_calls_outside_the_span_and_other_events_do_not_count():
    events = {BANK: [call(5, PAYMENT, "node.query"), call(10, PAYMENT, "node.query"), {"at": 7, "event": "x"}]}
    assert sum(kind.count for kind in report.calls(events, since=5, until=10)) == 1


def test_files_are_replaced_whole(tmp_path):
    out = tmp_path / "build/demo"
    for intersection in (799, 800):
        page = report.write(out, facts(intersection_size=intersection))
    assert page == out / "report.html"
    assert json.loads((out / "report.json").read_text())["intersection_size"] == 800
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "report.json"]


def test_columns_of_the_dag_follow_what_flows():
    components = facts().dag["components"]
    assert list(charts.ranks(components).values()) == [0, 1, 2, 3, 4, 5]
    assert charts.ranks(components[::-1]) == charts.ranks(components)


def test_the_tasks_messages_are_drawn_in_both_directions():
    page = report.render(facts())
    assert page.count(">messages of the tasks<") == 2
    assert "3.0 MiB in all" in page
    assert ">messages of the tasks<" not in report.render(facts(bytes_sent={}))
    assert "POST /v1/interconn/chan/invoke" not in page, "they pass over a stream"


def test_a_run_without_times_or_calls_still_gives_a_page():
    page = report.render(facts(shares={}, events={}))
    assert "No call between the two." in page
    assert "times are not known" in page
