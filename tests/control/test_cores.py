"""How many threads a component gets: the setting, the machine's cores, who else runs."""

import os
from pathlib import Path

import pytest

from gateway.config import ConfigError, load
from gateway.runtime import cores
from gateway.runtime.cores import threads_for, usable_cores
from tests.stores.test_store_config import NODE


def test_the_setting(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(NODE)
    assert load(file).jobs.threads == 0
    for good in (1, 64):
        file.write_text(f"{NODE}\n[jobs]\nthreads = {good}\n")
        assert load(file).jobs.threads == good


@pytest.mark.parametrize("wrong", ["-1", "65", '"2"', "true", "1.5", "inf"])
def test_what_is_no_number_of_threads_is_refused(tmp_path: Path, wrong: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(f"{NODE}\n[jobs]\nthreads = {wrong}\n")
    with pytest.raises(ConfigError, match=r"jobs\.threads must be"):
        load(file)


@pytest.mark.parametrize(
    ("wanted", "available", "running", "cpu", "threads"),
    [
        (0, 8, 1, None, 8),
        (0, 8, 3, None, 2),
        (0, 2, 4, None, 1),
        (0, 1, 0, None, 1),
        (0, 128, 1, None, 64),
        (0, 8, 1, 2.0, 2),
        (0, 8, 4, 6.0, 2),
        (3, 8, 4, None, 3),
        (3, 1, 1, None, 3),
        (3, 8, 1, 1.5, 2),
        (3, 8, 1, 0.5, 1),
    ],
)
def test_threads_of_a_component(wanted: int, available: int, running: int, cpu: float | None, threads: int) -> None:
    assert threads_for(wanted=wanted, cores=available, running=running, cpu=cpu) == threads


def test_cores_are_those_of_the_affinity_and_of_every_quota_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "slice" / "gateway"
    inner.mkdir(parents=True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(cores, "own_cgroup", lambda: inner)
    assert usable_cores() == 16
    (inner / "cpu.max").write_text("max 100000\n")
    assert usable_cores() == 16
    (inner.parent / "cpu.max").write_text("350000 100000\n")
    assert usable_cores() == 4
    (inner / "cpu.max").write_text("20000 100000\n")
    assert usable_cores() == 1
    for broken in ("", "1 0", "many 100000"):
        (inner / "cpu.max").write_text(broken)
        assert usable_cores() == 4

    def none() -> Path:
        raise StopIteration

    monkeypatch.setattr(cores, "own_cgroup", none)
    assert usable_cores() == 16
