"""A gateway of ours as the transport module of a node that runs another product, set up as docs/peers.md tells."""

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from gateway import lab
from gateway.auth.pki import Pki
from gateway.cli import main
from gateway.lab.lab import LabNode
from gateway.lab.node import CONFIG, PKI
from gateway.lab.ports import PortClaims
from tests.waiting import wait_for


def interconn(*arguments: object) -> str:
    """A command as a person types it; what it printed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main([str(each) for each in arguments])
    assert code == 0, said.getvalue()
    return said.getvalue()


def stand_beside(config: Path, partner: LabNode, *, beginning: str) -> None:
    """What an admin tells the gateway of this node.toml: who the partner is, and its sessions."""
    interconn(
        "partner", "record", partner.node_id, "--profile", "transport-only", "--address", partner.edge_url,
        "--ca-file", partner.ca_file, "--config", config,
    )  # fmt: skip
    interconn("session", "declare", beginning, partner.node_id, "--prefix", "--config", config)


def bytes_of(folder: Path, event: str, session: str) -> list[int]:
    """Sizes of the messages that a node's data process took (chan.invoke) or sent on (chan.push) in a session."""
    lines = folder.joinpath("log", "gateway-data.log").read_text().splitlines()
    found = [each for each in map(json.loads, lines) if each["event"] == event and each["session_id"] == session]
    return [int(each["bytes"]) for each in found]


@contextlib.contextmanager
def partners(directory: Path, session: str) -> Iterator[tuple[LabNode, ...]]:
    """Two gateways; on both the admin has declared the session, as for any product that runs no job of ours."""
    made = lab.up(directory, approved=True).nodes
    try:
        for node, other in (made, reversed(made)):
            node.client().post("sessions", session_id=session, nodes=[other.node_id])
        yield made
    finally:
        lab.down(directory)


class Beside:
    """Speaks for `node_id` in the transport layer and in nothing else; its platform listener is the product's."""

    def __init__(self, folder: Path, node_id: str, partner: LabNode, *, beginning: str, platform_port: int = 0) -> None:
        self.config = folder / CONFIG
        with PortClaims() as claims:
            edge, platform, admin = claims.take(), platform_port or claims.take(), claims.take()
        interconn(
            "init", "--dir", folder, "--node-id", node_id, "--name", "transport of " + node_id,
            "--edge-port", edge, "--platform-port", platform, "--admin-port", admin,
        )  # fmt: skip
        self.edge_url = f"https://127.0.0.1:{edge}"
        self.transport = f"127.0.0.1:{platform}"
        self.pki = Pki.load(folder / PKI)
        self.serve()
        stand_beside(self.config, partner, beginning=beginning)

    def serve(self) -> None:
        with self.config.with_name("serve.out").open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "serve", "--config", self.config], stdout=out, stderr=out
            )
        wait_for(self._answers, "the gateway beside the other product serves")

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.config.with_name("serve.out").read_text()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return main(["node", "--config", str(self.config)]) == 0

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(15)
