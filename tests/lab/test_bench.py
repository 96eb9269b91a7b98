"""accel.bench: rounds and ratios, what is judged and how it is written, and the pipe to a rival."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from accel.bench import rivals as rivals_module
from accel.bench.contest import OpensslSpeed
from accel.bench.measure import Contest, Contestant, Job, Result, Row, measure
from accel.bench.options import RIVALS
from accel.bench.plots import plot
from accel.bench.report import NoReport, Report, machine_lines, markdown, rate_text, ratio_text, rows, show
from accel.bench.rivals import PACKAGES, Rival, RivalFailed, Rivals
from accel.bench.run import FAMILIES, _measured, machine
from accel.bench.targets import IFMA, TARGETS, Met, Target, judge
from bench import kernels_page


class Fixed:
    """A contestant with rates that are known beforehand."""

    def __init__(self, name: str, *rates: float) -> None:
        self.name = name
        self._rates = iter(rates)
        self.made_ready = 0

    def rate(self, seconds: float) -> float:
        if not seconds:
            self.made_ready += 1
            return 0.0
        return next(self._rates)


def row(ours: Contestant, *theirs: Contestant) -> Row:
    return Row("family", "kernel", "detail", "1/s", lambda: Contest([ours], theirs))


def result(kernel: str, ratio: float | None, *, ours: str = IFMA, rival: str | None = "gmpy2 2.3 powmod") -> Result:
    spread = None if ratio is None else (ratio * 0.9, ratio * 1.1)
    return Result("modexp", kernel, "2048 bits", "1/s", ours, 10.0, (9.0, 11.0), rival, 1.0, ratio, spread)


def report(*results: Result, load: float = 0.1) -> Report:
    facts = machine() | {
        "quick": True, "only": [], "rounds": 3, "seconds": 0.1, "rivals": ["phe 1.5.0"], "load_average_after": 0.2,
        "load_average_before": load, "cores": 2,
        "avx512ifma": True,
    }  # fmt: skip
    return Report(facts, list(results), {"flwr": "not installed: pip install flwr"})


def test_a_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_medians() -> None:
    ours, theirs = Fixed("ours", 10.0, 40.0, 30.0), Fixed("theirs", 1.0, 10.0, 2.0)
    (found,) = measure(row(ours, theirs), rounds=3, seconds=1)
    assert (found.rate, found.rival_rate) == (30.0, 2.0)
    assert (found.ratio, found.ratio_spread) == (10.0, (4.0, 15.0))
    assert (ours.made_ready, theirs.made_ready) == (1, 1)


def test_every_one_of_ours_meets_every_rival() -> None:
    contest = Contest([Fixed("a", 6.0), Fixed("b", 12.0)], [Fixed("x", 2.0), Fixed("y", 3.0)])
    found = measure(Row("f", "k", "", "1/s", lambda: contest), rounds=1, seconds=1)
    assert [(r.ours, r.rival, r.ratio) for r in found] == [
        ("a", "x", 3.0), ("a", "y", 2.0), ("b", "x", 6.0), ("b", "y", 4.0),
    ]  # fmt: skip


def test_without_a_rival_the_rate_stands_alone() -> None:
    (found,) = measure(row(Fixed("ours", 5.0)), rounds=1, seconds=1)
    assert (found.rate, found.rival, found.ratio) == (5.0, None, None)
    assert rows([found])[0][-3:] == ["none here", "", "-"]


def test_a_job_runs_once_at_least() -> None:
    calls: list[int] = []
    assert Job("job", 7, lambda: calls.append(1)).rate(0) > 0
    assert calls == [1]


KERNELS = {"one": "first", "two": "second"}


@pytest.mark.parametrize(
    ("ratios", "met", "found"),
    [
        ({"one": 3.0, "two": 2.0}, Met.AIM, {"one": 3.0, "two": 2.0}),
        ({"one": 3.0, "two": 1.95}, Met.LEAST, {"one": 3.0, "two": 1.95}),
        ({"one": 3.0, "two": 1.0}, Met.MISSED, {"one": 3.0, "two": 1.0}),
        ({"one": 1.5}, Met.LEAST, {"one": 1.5}),
        ({"one": None}, Met.UNKNOWN, {}),
        ({}, Met.UNKNOWN, {}),
    ],
)
def test_the_worst_kernel_of_a_line_decides(ratios: dict[str, float | None], met: Met, found: dict[str, float]) -> None:
    target = Target("line", KERNELS, IFMA, ("gmpy2 * powmod",), 1.5, 2.0)
    (verdict,) = judge([result(kernel, ratio) for kernel, ratio in ratios.items()], [target])
    assert (verdict.met, verdict.found) == (met, found)


def test_the_fastest_rival_counts_and_others_do_not() -> None:
    target = Target("line", KERNELS, IFMA, ("openssl *", "cryptography *"), 1.0, None)
    results = [
        result("one", 2.0, rival="cryptography 50 X25519"),
        result("one", 0.9, rival="openssl 3.0.19 speed ecdhx25519"),
        result("one", 0.1, rival="gmpy2 2.3 powmod"),
        result("one", 0.2, rival="openssl 3.0.19 speed ecdhx25519", ours="portable"),
    ]
    assert judge(results, [target])[0].met is Met.MISSED
    assert judge(results[:1], [target])[0].found == {"one": 2.0}


def test_powmod_and_powmod_sec_are_told_apart() -> None:
    target = Target("line", KERNELS, IFMA, ("gmpy2 * powmod",), 1.0, None)
    assert not target.covers(result("one", 1.0, rival="gmpy2 2.3 powmod_sec"))


def test_an_aim_without_a_minimum_is_missed_below_it() -> None:
    target = Target("line", KERNELS, IFMA, ("gmpy2 *",), None, 0.95)
    assert judge([result("one", 0.9)], [target])[0].met is Met.MISSED
    assert judge([result("one", 0.95)], [target])[0].met is Met.AIM


def test_every_target_names_rows_that_a_full_run_has() -> None:
    with Rivals() as none:
        kernels = {row.kernel for family in FAMILIES for row in family(False, none)}
    assert {kernel for target in TARGETS for kernel in target.kernels} <= kernels


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (None, ""), (0.0312, "0.031"), (0.0994, "0.099"), (0.0996, "0.10"), (0.847, "0.85"), (1.896, "1.90"),
        (1.996, "2.0"), (9.96, "10.0"), (471.23, "471.2"),
    ],
)  # fmt: skip
def test_ratios(ratio: float | None, text: str) -> None:
    assert ratio_text(ratio) == text


@pytest.mark.parametrize(
    ("ratio", "text"), [(5.97, "5.9"), (6.0, "6.0"), (1.896, "1.89"), (1.9, "1.90"), (1.999, "1.99"), (0.849, "0.84")]
)
def test_what_misses_its_target_never_looks_as_if_it_met_it(ratio: float, text: str) -> None:
    assert ratio_text(ratio, down=True) == text


@pytest.mark.parametrize(
    ("rate", "unit", "text"),
    [
        (None, "1/s", ""), (46.54, "1/s", "46.5/s"), (1234.0, "1/s", "1,230/s"), (305_499.0, "1/s", "305,000/s"),
        (9_412_345.0, "1/s", "9.41 M/s"), (999_900_000.0, "entries/s", "1 G entries/s"),
        (999_950.0, "1/s", "1 M/s"), (14.7e9, "B/s", "14.7 GB/s"), (126.4e6, "B/s", "126 MB/s"),
    ],
)  # fmt: skip
def test_rates(rate: float | None, unit: str, text: str) -> None:
    assert rate_text(rate, unit) == text


def test_a_report_is_read_as_it_was_written() -> None:
    made = report(result("modexp 2048, public exponent", 9.0), result("modexp 3072, public exponent", None, rival=None))
    assert Report.read(made.text()) == made
    assert json.loads(made.text()) == json.loads(json.dumps(made.value()))
    verdict = made.value()["verdicts"][0]
    assert (verdict["measured"], verdict["verdict"]) == ({"modexp 2048, public exponent": 9.0}, "met")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "machine": {}, "results": [{}]}'])
def test_anything_else_is_no_report(text: str) -> None:
    with pytest.raises(NoReport):
        Report.read(text)


def test_a_busy_machine_is_said_first() -> None:
    made = report(result("modexp 2048, public exponent", 9.0), load=1.1)
    assert machine_lines(made)[0].startswith("Other work was running: a load average of 1.1 on 2 cores")
    assert markdown(made).startswith("**Other work was running")
    assert not machine_lines(report(load=1.0))[0].startswith("Other work")


def test_what_the_row_before_says_is_not_said_again() -> None:
    both = rows([result("one", 2.0), result("one", 3.0, rival="phe 1.5.0")])
    assert both[0][:4] == ["one", "2048 bits", "avx512ifma", "10.0/s"]
    assert both[1][:5] == ["", "", "", "", "phe 1.5.0"]


def test_the_report_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    show(report(result("modexp 2048, public exponent", 7.0)), Console(width=160))
    told = capsys.readouterr().out
    assert "missed" in told
    assert "2048 bits" in told
    assert "flwr: not installed: pip install flwr" in told


def test_a_narrow_terminal_gets_the_columns_that_matter(capsys: pytest.CaptureFixture[str]) -> None:
    show(report(result("modexp 2048, public exponent", 7.0)), Console(width=100))
    told = capsys.readouterr().out
    assert "2048 bits" not in told
    assert "7.0 (6.3-7.7)" in told


def test_a_drawing_marks_what_was_asked() -> None:
    drawn = plot("modexp", [result("modexp 2048, public exponent", 9.0), result("<other>", 0.03)])
    assert 'class="least"' in drawn
    assert 'class="aim"' in drawn
    assert "&lt;other&gt;" in drawn
    assert ">0.03<" in drawn


def test_the_page_is_made_from_the_report_beside_it(tmp_path: Path) -> None:
    docs = kernels_page.DOCS
    (tmp_path / "benchmarks.md").write_text((docs / "benchmarks.md").read_text())
    kernels_page.write(Report.read((docs / "benchmarks" / "kernels.json").read_text()), tmp_path)
    for made in sorted((*tmp_path.glob("*.md"), *(tmp_path / "benchmarks").iterdir())):
        assert made.read_text() == (docs / made.relative_to(tmp_path)).read_text(), f"run make bench-page: {made.name}"


def test_a_page_wants_a_whole_run(tmp_path: Path) -> None:
    part = report(result("modexp 2048, public exponent", 7.0))
    with pytest.raises(ValueError, match="some rows only"):
        kernels_page.write(Report({**part.machine, "only": ["modexp"]}, part.results, {}), tmp_path)
    assert list(tmp_path.iterdir()) == []


RIVAL = """
import sys
print(sys.argv[1], flush=True)
for line in sys.stdin:
    answers = dict(good="done 20", odd="done none", bad="failed ValueError: no", mad="x" * 5000)
    print(answers.get(line.strip()), flush=True)
    if line == "last\\n":
        break
"""


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Rival]:
    script = tmp_path / "rival.py"
    script.write_text(RIVAL)
    rival = Rival("fake", [sys.executable, str(script), "ready fake 1.0"], start_seconds=20)
    yield rival
    rival.close()


def test_a_rival_does_jobs_over_a_pipe(fake: Rival) -> None:
    job = fake.job("good", kind="quickly")
    assert job.name == "fake 1.0 quickly"
    assert fake.do("good") == 20
    assert job.rate(0) > 0


@pytest.mark.parametrize(
    ("job", "why"),
    [
        ("bad", "fake: ValueError: no"),
        ("odd", "fake: odd: answers something else than units of work"),
        ("mad", "fake: answers too much"),
        ("other", "fake: does not speak the protocol of the benchmark"),
    ],
)
def test_a_rival_that_fails_says_why(fake: Rival, job: str, why: str) -> None:
    with pytest.raises(RivalFailed) as failed:
        fake.do(job)
    assert str(failed.value) == why


def test_a_rival_that_ends_is_noticed(fake: Rival) -> None:
    with pytest.raises(RivalFailed):
        fake.do("last")
    with pytest.raises(RivalFailed, match="has ended"):
        fake.do("good")


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["/nowhere/python"], "cannot start /nowhere/python: No such file"),
        ([sys.executable, "-c", "print('failed ImportError: no such module')"], "ImportError: no such module"),
        ([sys.executable, "-c", ""], "has ended"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], "no answer in 0 s"),
    ],
)
def test_a_rival_that_does_not_start_says_why(command: list[str], why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals_module, "GRACE_SECONDS", 0.1)
    with pytest.raises(RivalFailed, match=why):
        Rival("fake", command, start_seconds=0.3 if "sleep" in command[-1] else 20)


def test_an_absent_rival_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals_module.importlib.util, "find_spec", lambda _: None)
    with Rivals() as none:
        assert none.jobs("sf-heu", "ou encrypt") == []
    assert none.absent["sf-heu"].startswith("not installed: pip install sf-heu 'numpy<2'")
    assert "--rival sf-heu=PYTHON" in none.absent["sf-heu"]


def test_an_environment_without_the_package_is_named() -> None:
    with Rivals([("sf-heu", sys.executable)]) as wrong:
        assert wrong.jobs("sf-heu", "ou encrypt") == []
    assert "ModuleNotFoundError: No module named 'heu'" in wrong.absent["sf-heu"]


def test_a_rival_that_fails_in_a_row_is_left_out_of_it(fake: Rival) -> None:
    with Rivals() as some:
        some._running["fake"] = [fake]
        bad = Row("f", "k", "", "1/s", lambda: Contest([Fixed("ours", 5.0)], some.jobs("fake", "bad")))
        (found,) = _measured(bad, some, rounds=1, seconds=0.001)
    assert (found.rate, found.rival) == (5.0, None)
    assert some.absent["fake"] == "ValueError: no"


def test_phe_itself() -> None:
    pytest.importorskip("phe")
    with Rivals() as some:
        (job,) = some.jobs("phe", "add")
        assert job.name.startswith("phe ")
        assert job.rival.do("add") == 1000
        with pytest.raises(RivalFailed, match="phe: KeyError: 'none'"):
            job.rival.do("none")


def test_the_names_of_rivals_are_the_options() -> None:
    assert set(RIVALS) == set(PACKAGES)
    folder = Path(rivals_module.__file__).parent
    assert {f"with_{name.replace('-', '_')}" for name in RIVALS} == {file.stem for file in folder.glob("with_*.py")}


def test_openssl_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "openssl"
    command.write_text('#!/bin/sh\necho "+DT:AES-128-CTR:1:16384"\necho "+F:25:AES-128-CTR:5996068864.00"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert OpensslSpeed("openssl 3 speed", ("-evp", "aes-128-ctr")).rate(1) == 5996068864.0
    command.write_text("#!/bin/sh\n")
    with pytest.raises(RivalFailed, match="does not answer as expected"):
        OpensslSpeed("openssl 3 speed", ()).rate(1)
