"""A job survives SIGKILL of a process of either gateway, or both sides know that it has not."""

from pathlib import Path

import pytest

from tests.integration.crash import VICTIMS, Pair

RUNS = 10


@pytest.mark.req("C-061", "C-062", "C-089")
def test_both_sides_agree_whoever_is_killed_whenever(tmp_path: Path) -> None:
    pair = Pair.start(tmp_path / "lab", seed=RUNS)
    try:
        for number in range(RUNS):
            pair.run(VICTIMS[number % len(VICTIMS)])
    finally:
        pair.close()
