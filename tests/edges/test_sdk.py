"""The component's own channel through two gateways whose certificates `gateway.auth.pki` made."""

import asyncio
import hashlib
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.auth.pki import Pki
from gateway.data_plane.io.process import DataProcess
from gateway.model import NodeId
from gateway.runtime.system import SystemClock, SystemEntropy
from gateway.sdk.channel import Channel, Line
from gateway.sdk.environment import Address
from gateway.sdk.result import ComponentError
from tests.edges import rig
from tests.edges.rig import FakeControl, ListJournal

A, B = NodeId("LX-A"), NodeId("LX-B")


async def start(name: NodeId, path: Path, pki: Pki) -> tuple[DataProcess, str, str, FakeControl]:
    control = FakeControl(path)
    await control.start()
    with rig.folder() as other:
        settings = rig.settings(other, name)
    settings = replace(settings, tls_chain=pki.tls, tls_key=pki.tls_key, run_dir=path)
    process = DataProcess(settings, journal=ListJournal(), clock=SystemClock(), entropy=SystemEntropy())
    ports = await process.start()
    return process, f"https://127.0.0.1:{ports.edge}", f"127.0.0.1:{ports.platform}", control


async def test_a_component_sends_and_receives() -> None:
    with rig.folder() as path_a, rig.folder() as path_b:
        pki_a, pki_b = (Pki.create(p / "pki", n) for p, n in ((path_a, A), (path_b, B)))
        a, edge_a, here_a, control_a = await start(A, path_a, pki_a)
        b, edge_b, here_b, control_b = await start(B, path_b, pki_b)
        try:
            await a.set_routes([rig.PeerRoute(B, "JG-B", edge_b, pki_b.ca.read_text(), "strict-1.2")])
            await b.set_routes([rig.PeerRoute(A, "JG-A", edge_a, pki_a.ca.read_text(), "strict-1.2")])
            a.channel.open_session(rig.rule(A, B))
            digest = hashlib.sha256(b"host's secret").hexdigest()
            payloads = [os.urandom(size) for size in (1, 1000, 100_000, 3 << 20)]

            def guest() -> None:
                line = Channel(Line(here_a, rig.SID, "trace-1", rig.TOKEN))
                for payload in payloads:
                    line.push("x", b"head", payload, to=Address(B, "JG-B"), deadline=time.monotonic() + 20)
                line.close()

            def host() -> list[bytes]:
                line = Channel(Line(here_b, rig.SID, "trace-1", "host's secret"))
                got = []
                for _ in payloads:
                    message = line.pop("x", source=Address(A, "JG-A"), wait_ms=10_000, deadline=time.monotonic() + 20)
                    assert message is not None
                    got.append(bytes(message))
                assert line.pop("x", source=Address(A, "JG-A"), wait_ms=1, deadline=time.monotonic()) is None
                with pytest.raises(ComponentError):
                    Channel(Line(here_b, rig.SID, "trace-1", rig.TOKEN)).peek("x", source=Address(A, "JG-A"))
                line.close()
                return got

            # The host's task starts later than the guest's.
            sending = asyncio.create_task(asyncio.to_thread(guest))
            await asyncio.sleep(0.1)
            b.channel.open_session(replace(rig.rule(A, B), tokens={digest: "host.0"}))
            got = await asyncio.to_thread(host)
            await sending
            assert got == [b"head" + payload for payload in payloads]
            assert a.channel.sent_bytes(rig.SID) == {B: sum(map(len, got))}
        finally:
            for process, control in ((a, control_a), (b, control_b)):
                await process.stop()
                await control.stop()
