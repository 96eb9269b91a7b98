"""What node.toml says of the channel reaches the data process."""

from pathlib import Path

import pytest

from gateway.app import data
from gateway.config import load
from gateway.data_plane.io.process import DataSettings

NODE = '[node]\nnode_id="n"\ninst_id="i"\nname="n"\ninstitution="i"\naddress="https://127.0.0.1:7304"\n'


@pytest.mark.parametrize(
    ("said", "peek_keeps", "strict"),
    [
        ("", False, False),
        ("[channel]\npeek_keeps = true\n", True, False),
        ("[channel]\nstrict = true\n", False, True),
    ],
)
def test_peek_and_strictness_are_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, peek_keeps: bool, strict: bool
) -> None:
    found: list[DataSettings] = []

    def run(settings: DataSettings, **_: object) -> int:
        found.append(settings)
        return 0

    monkeypatch.setattr(data, "run_data_process", run)
    file = tmp_path / "node.toml"
    file.write_text(NODE + said)
    assert data.run_data(load(file)) == 0
    assert (found[0].peek_keeps, found[0].strict) == (peek_keeps, strict)
