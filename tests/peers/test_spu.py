"""A real SPU pair, whose black-box link is part 4's transport, through two gateways of ours (docs/peers/spu.md).

Runs where INTERCONN_PEER_SPU names a Python interpreter that has spu 0.9.2b0, or where `make peers` has put one.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.lab.lab import LabNode
from tests.peers.beside import partners

PYTHON = os.environ.get("INTERCONN_PEER_SPU") or "build/peers/spu/bin/python"
PROGRAM = Path(__file__).with_name("spu_psi.py")
SESSION = "spu-by-hand"
COUNT, SHARED = 20_000, 7_000

pytestmark = pytest.mark.skipif(
    not Path(PYTHON).exists(), reason=f"no SPU: {PYTHON} does not exist (`make peers`, or INTERCONN_PEER_SPU)"
)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LabNode, ...]]:
    with partners(tmp_path_factory.mktemp("spu"), SESSION) as made:
        yield made


@pytest.mark.req("T-040", "T-046")
@pytest.mark.parametrize("max_payload", [0, 4096], ids=["whole", "chunked"])
def test_psi_of_a_real_spu(nodes: tuple[LabNode, ...], tmp_path: Path, max_payload: int) -> None:
    ids = [{f"{i:016d}" for i in range(first, first + COUNT)} for first in (0, COUNT - SHARED)]
    parties = {"alice": nodes[0], "bob": nodes[1]}
    running = []
    for rank, (party, node) in enumerate(parties.items()):
        (tmp_path / f"in{rank}.csv").write_text("\n".join(["id", *sorted(ids[rank])]) + "\n")
        told = {
            "system.transport": node.platform_url.removeprefix("http://"),
            "config.trace_id": "spu",
            "config.token": "",
            "config.session_id": SESSION,
            "config.self_role": party,
            **{f"config.inst_id.{name}": each.inst_id for name, each in parties.items()},
            **{f"config.node_id.{name}": each.node_id for name, each in parties.items()},
        }
        files = [str(tmp_path / f"in{rank}.csv"), str(tmp_path / f"out{rank}.csv")]
        hosts = [each.node_id for each in parties.values()]
        running.append(
            subprocess.Popen(
                [PYTHON, str(PROGRAM), str(rank), *hosts, *files, str(max_payload)],
                env={**os.environ, **told},
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        told_us = [process.communicate(timeout=90) for process in running]
    finally:
        for process in running:
            process.kill()
    for out, err in told_us:
        assert f"found {COUNT} {SHARED}" in out.splitlines(), out[-2000:] + err[-2000:]
    for rank in (0, 1):
        found = (tmp_path / f"out{rank}.csv").read_text().split()[1:]
        assert {each.strip('"') for each in found} == ids[0] & ids[1]
    print(f"\nSPU, {'chunks of 4 KiB' if max_payload else 'whole messages'}: {SHARED} of {COUNT} ids on both sides")
