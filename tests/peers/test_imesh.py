"""imesh, the reference transport SDK, as the container on both sides of two gateways (docs/peers/imesh.md).

Runs where INTERCONN_PEER_IMESH names a Python interpreter that has imesh 0.0.29, or where `make peers` has put one.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.lab.lab import LabNode
from tests.peers.beside import partners

PYTHON = os.environ.get("INTERCONN_PEER_IMESH") or "build/peers/imesh/bin/python"
PROGRAM = Path(__file__).with_name("imesh_talk.py")
SESSION = "imesh-by-hand"

pytestmark = pytest.mark.skipif(
    not Path(PYTHON).exists(), reason=f"no imesh: {PYTHON} does not exist (`make peers`, or INTERCONN_PEER_IMESH)"
)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LabNode, ...]]:
    with partners(tmp_path_factory.mktemp("imesh"), SESSION) as made:
        yield made


def talk(node: LabNode, target: LabNode, *words: str) -> tuple[int, str]:
    """(bytes, SHA-256) of what it sent or got."""
    address = node.platform_url.removeprefix("http://")
    told = [PYTHON, str(PROGRAM), address, SESSION, target.node_id, *words]
    done = subprocess.run(told, capture_output=True, text=True, timeout=60, check=False)
    found = [line.split() for line in done.stdout.splitlines() if line.startswith("got ")]
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return int(found[0][1]), found[0][2]


@pytest.mark.req("T-037", "T-038", "T-052")
@pytest.mark.parametrize("size", [5, 3_000_000], ids=["small", "large"])
def test_messages_of_the_reference_sdk(nodes: tuple[LabNode, ...], size: int) -> None:
    a, b = nodes
    sent = talk(a, b, "push", f"topic-{size}", str(size))
    assert sent[0] == size
    assert talk(b, a, "pop", f"topic-{size}") == sent
    print(f"\nimesh: {size} bytes from {a.node_id} to {b.node_id}")


def test_release(nodes: tuple[LabNode, ...]) -> None:
    a, b = nodes
    talk(a, b, "push", "left", "10")
    talk(b, a, "release", "left")
    for piece in (0, 1):
        assert talk(b, a, "peek", f"left-mesh-split-{piece}")[0] == 0
