"""`interconn bench`: the kernels against rivals, and against a GPU: what it says without one, and its measuring on
backends that every machine has.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from accel import registry
from accel.bench import gpu
from accel.kernels import DeviceFailed
from gateway import cli

KERNELS = {"modpow", "x25519", "mask.aes128ctr", "ringmatrices"}


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "missing", lambda: "there is no GPU to measure: cupy is not installed")


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], no_gpu: None) -> None:
    assert cli.main(["bench", "gpu"]) == 1
    assert capsys.readouterr().out == "There is no GPU to measure: cupy is not installed.\n"
    assert cli.main(["bench", "gpu", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["results"] == []


def test_why_there_is_none_comes_from_the_backend() -> None:
    refused = registry.choose("x25519", "cuda")[1].reasons["cuda"]
    reason = gpu.missing()
    if registry.choose("x25519", "cuda")[0] is None:
        assert reason == f"there is no GPU to measure: {refused}"
    else:
        assert reason is None


def test_every_job_runs_and_agrees() -> None:
    results = list(gpu.measured(gpu.jobs(16), "reference", rounds=1, threads=1))
    assert {result.kernel for result in results} == KERNELS
    assert all(result.backend == "reference" and result.rate > 0 and result.ratio > 0 for result in results)


def test_a_wrong_result_is_never_timed() -> None:
    def run(kernel: Any, count: int) -> object:
        return np.full(count, len(kernel.name))

    job = gpu.Job("x25519", "told apart by their names", "1/s", 16, run)
    fastest = registry.x25519().name
    other = next(b.name for b in registry.BACKENDS["x25519"] if b.name != fastest and b.priority >= 0)
    if len(other) == len(fastest):
        pytest.skip("the names have one length")
    with pytest.raises(gpu.Disagreement, match="disagree"):
        list(gpu.measured(iter([job]), other, rounds=1, threads=1))


def test_a_device_that_fails_keeps_what_was_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> Any:
        yield gpu.Result("x25519", "some", "1/s", "cuda", 30.0, "portable", 10.0, 3.0)
        raise DeviceFailed("the device has too little free memory")

    monkeypatch.setattr(gpu, "missing", lambda: None)
    monkeypatch.setattr(gpu, "measured", failing)
    assert cli.main(["bench", "gpu", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["failure"] == "the device has too little free memory"
    assert [row["ratio"] for row in told["results"]] == [3.0]


@pytest.mark.parametrize("options", [["--rounds", "0"], ["--batch", "0"], ["--batch", "2000000"], ["--threads", "65"]])
def test_senseless_options_are_refused(options: list[str], no_gpu: None) -> None:
    assert cli.main(["bench", "gpu", *options]) == 2


def test_the_kernels_against_rivals(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert (
        cli.main(["bench", "kernels", "--quick", "--only", "x25519, one scalar each", "--json", "--out", f"{tmp_path}"])
        == 0
    )
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert {row["kernel"] for row in told["results"]} == {"x25519, one scalar each"}
    assert "1/1 x25519, one scalar each" in captured.err
    assert all(row["rate"] > 0 and row["ratio"] > 0 for row in told["results"])
    assert json.loads((tmp_path / "kernels.json").read_text()) == told
    assert "| x25519, one scalar each |" in (tmp_path / "kernels.md").read_text()
    assert (tmp_path / "curves.svg").read_text().startswith("<svg")


def test_a_run_of_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "kernels", "--quick", "--only", "nothing has this"]) == 2
    assert capsys.readouterr().err == "interconn: --only: no row has that in its family or kernel\n"


@pytest.mark.parametrize("rival", ["phe", "other=python", "phe="])
def test_a_rival_is_a_known_name_and_a_python(rival: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        cli.main(["bench", "kernels", "--rival", rival])
    assert refused.value.code == 2
    assert "NAME=PYTHON with NAME one of phe, sf-heu" in capsys.readouterr().err
