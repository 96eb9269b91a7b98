"""Ports of gRPC in node.toml."""

from pathlib import Path

import pytest

from gateway.config import ConfigError, load
from tests.stores.test_store_config import NODE


def test_grpc_is_on_the_ports_of_http_unless_told_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(NODE)
    found = load(file)
    assert [(each.grpc, each.grpc_port) for each in (found.edge, found.platform)] == [(True, 0), (True, 0)]
    file.write_text(f"{NODE}\n[edge]\ngrpc = false\ngrpc_port = 7307\n")
    assert (load(file).edge.grpc, load(file).edge.grpc_port) == (False, 7307)


@pytest.mark.parametrize("wrong", ["grpc_port = 65536", "grpc_port = -1", 'grpc = "yes"', "grpc_port = true"])
def test_what_is_no_port_is_refused(tmp_path: Path, wrong: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(f"{NODE}\n[platform]\n{wrong}\n")
    with pytest.raises(ConfigError, match=r"platform\.grpc"):
        load(file)
