"""`interconn bench gpu`: what it says without a GPU, and its measuring on backends that every machine has."""

import json
from typing import Any

import numpy as np
import pytest

from accel import registry
from accel.kernels import DeviceFailed
from gateway import cli
from gateway.cli import bench

KERNELS = {"modpow", "x25519", "mask.aes128ctr", "ringmatrices"}


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "missing", lambda: "there is no GPU to measure: cupy is not installed")


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], no_gpu: None) -> None:
    assert cli.main(["bench", "gpu"]) == 1
    assert capsys.readouterr().out == "There is no GPU to measure: cupy is not installed.\n"
    assert cli.main(["bench", "gpu", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["results"] == []


def test_why_there_is_none_comes_from_the_backend() -> None:
    refused = registry.choose("x25519", "cuda")[1].reasons["cuda"]
    reason = bench.missing()
    if registry.choose("x25519", "cuda")[0] is None:
        assert reason == f"there is no GPU to measure: {refused}"
    else:
        assert reason is None


def test_every_job_runs_and_agrees() -> None:
    results = list(bench.measured(bench.jobs(16), "reference", rounds=1, threads=1))
    assert {result.kernel for result in results} == KERNELS
    assert all(result.backend == "reference" and result.rate > 0 and result.ratio > 0 for result in results)


def test_a_wrong_result_is_never_timed() -> None:
    def run(kernel: Any, count: int) -> object:
        return np.full(count, len(kernel.name))

    job = bench.Job("x25519", "told apart by their names", "1/s", 16, run)
    fastest = registry.x25519().name
    other = next(b.name for b in registry.BACKENDS["x25519"] if b.name != fastest and b.priority >= 0)
    if len(other) == len(fastest):
        pytest.skip("the names have one length")
    with pytest.raises(bench.Disagreement, match="disagree"):
        list(bench.measured(iter([job]), other, rounds=1, threads=1))


def test_a_device_that_fails_keeps_what_was_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> Any:
        yield bench.Result("x25519", "some", "1/s", "cuda", 30.0, "portable", 10.0, 3.0)
        raise DeviceFailed("the device has too little free memory")

    monkeypatch.setattr(bench, "missing", lambda: None)
    monkeypatch.setattr(bench, "measured", failing)
    assert cli.main(["bench", "gpu", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["failure"] == "the device has too little free memory"
    assert [row["ratio"] for row in told["results"]] == [3.0]


@pytest.mark.parametrize("options", [["--rounds", "0"], ["--batch", "0"], ["--batch", "2000000"], ["--threads", "65"]])
def test_senseless_options_are_refused(options: list[str], no_gpu: None) -> None:
    assert cli.main(["bench", "gpu", *options]) == 2
