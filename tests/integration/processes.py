"""Data processes of their own, that can be killed and started again on the same ports; control answers from here.

Where a test needs whole gateways (management, database), there is tests/integration/rig.py.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gateway.data_plane.io import stream_local
from gateway.data_plane.io.link import DataPlaneLink
from gateway.data_plane.io.process import DataSettings, run_data_process
from gateway.model import InstId, Limits, NodeId, SessionId
from gateway.ports import PeerRoute, SessionRule
from gateway.runtime.journal import FileJournal
from gateway.runtime.system import SystemClock, SystemEntropy
from gateway.sdk.async_channel import AsyncChannel
from gateway.sdk.channel import Line
from tests.edges import rig

ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Gateway:
    """A data process in `folder`. settings: of DataSettings; spool_dir from there, or elsewhere by {name}."""

    name: NodeId
    folder: Path
    ca: rig.Authority
    files: rig.Files
    control: rig.FakeControl
    settings: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    edge: int = 0
    platform: int = 0
    process: asyncio.subprocess.Process | None = None
    starts: int = 0

    async def start(self) -> None:
        """Returns when it serves."""
        ready = self.folder / "data.json"
        ready.unlink(missing_ok=True)
        told = {
            "name": self.name,
            "edge_port": self.edge,
            "platform_port": self.platform,
            "limits": asdict(self.limits),
            "settings": dict(self.settings),
        }
        command = ["-m", "tests.integration.processes", str(self.folder), json.dumps(told)]
        environment = {"GRPC_VERBOSITY": "NONE", **os.environ, "PYTHONPATH": str(ROOT)}
        self.process = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=ROOT, env=environment)
        async with asyncio.timeout(60):
            while not ready.exists():
                if self.process.returncode is not None:
                    raise RuntimeError(f"{self.name} ended with {self.process.returncode}")
                await asyncio.sleep(0.01)
        ports = json.loads(ready.read_text())
        self.edge, self.platform = ports["edge_port"], ports["platform_port"]
        self.starts += 1

    async def kill(self) -> None:
        """As nobody expects it."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)
            await self.process.wait()

    def route(self, port: int = 0) -> PeerRoute:
        """How others reach it, through a link at `port`."""
        return PeerRoute(self.name, "i", f"https://127.0.0.1:{port or self.edge}", self.ca.pem, "strict-1.2")

    async def told(self, routes: list[PeerRoute], rules: list[SessionRule]) -> None:
        """It knows exactly these from now on, and after each start."""
        self.control.routes, self.control.rules = routes, rules
        async with self.link() as link:
            await link.replace_all(routes, rules)

    @contextlib.asynccontextmanager
    async def link(self) -> AsyncIterator[DataPlaneLink]:
        made = DataPlaneLink(self.folder)
        try:
            yield made
        finally:
            await made.close()

    async def stats(self) -> Mapping[str, Any]:
        async with self.link() as link:
            return await link.stats()

    def resident(self) -> int:
        """As the function of this name, of the process."""
        assert self.process is not None
        return resident(self.process.pid)

    def task(self, session: SessionId = rig.SID) -> AsyncChannel:
        """A task's way to it, over the Unix socket."""
        local = str(self.folder / stream_local.SOCKET)
        return AsyncChannel(Line(f"127.0.0.1:{self.platform}", session, "trace-1", rig.TOKEN, local=local))


def resident(pid: int | None = None) -> int:
    """RssAnon, in bytes: what a process, or this one, has written and nobody else has."""
    status = Path(f"/proc/{pid or 'self'}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) << 10


@contextlib.asynccontextmanager
async def gateway(name: NodeId, *, limits: Limits | None = None, **settings: Any) -> AsyncIterator[Gateway]:
    """One that serves, with no partner and no session."""
    with rig.folder() as folder:
        ca = rig.authority()
        files = rig.issue(folder, ca, rig.urn(name))
        control = rig.FakeControl(folder)
        made = Gateway(name, folder, ca, files, control, settings, limits or Limits())
        await control.start()
        try:
            await made.start()
            yield made
        finally:
            await made.kill()
            await control.stop()


def main() -> int:
    folder, told = Path(sys.argv[1]), json.loads(sys.argv[2])
    settings = DataSettings(
        node_id=NodeId(told["name"]),
        inst_id=InstId("i"),
        edge_host="127.0.0.1",
        edge_port=told["edge_port"],
        platform_port=told["platform_port"],
        tls_chain=folder / "tls.pem",
        tls_key=folder / "tls.key",
        run_dir=folder,
        limits=Limits(**told["limits"]),
        **told["settings"],
    )
    if settings.spool_dir is not None:
        settings = replace(settings, spool_dir=folder / str(settings.spool_dir).format(name=settings.node_id))
    clock = SystemClock()
    journal = FileJournal(folder / "data.log", clock, process="data")
    return run_data_process(settings, journal=journal, clock=clock, entropy=SystemEntropy())


if __name__ == "__main__":
    sys.exit(main())
