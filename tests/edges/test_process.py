"""The data process from outside: its link to control, its start, and its end on SIGTERM."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from gateway.data_plane.io.link import DATA_SOCKET, DataPlaneLink
from gateway.data_plane.io.process import DataProcess, DataSettings
from gateway.errors import CallerError, Kind, ProtocolViolation, Unavailable
from gateway.model import NodeId, SessionId
from gateway.runtime.system import SystemClock, SystemEntropy
from tests.edges import rig
from tests.edges.rig import Container, FakeControl, node

OK = "E0000000000"
A, B = NodeId("LX-A"), NodeId("LX-B")
MAIN = """
import sys
from pathlib import Path
from gateway.data_plane.io.process import DataSettings, run_data_process
from gateway.model import InstId, NodeId
from gateway.runtime.system import SystemClock, SystemEntropy
from tests.edges.rig import ListJournal
run, name = Path(sys.argv[1]), sys.argv[2]
settings = DataSettings(node_id=NodeId(name), inst_id=InstId("i"), edge_host="127.0.0.1", edge_port=0,
    tls_chain=run / "tls.pem", tls_key=run / "tls.key", run_dir=run)
sys.exit(run_data_process(settings, journal=ListJournal(), clock=SystemClock(), entropy=SystemEntropy()))
"""


@contextlib.asynccontextmanager
async def link(one: rig.Node) -> AsyncIterator[DataPlaneLink]:
    made = DataPlaneLink(one.folder, wait_s=3)
    try:
        yield made
    finally:
        await made.close()


async def test_control_tells_and_asks(client: aiohttp.ClientSession) -> None:
    async with node("LX-A") as a, node("LX-B") as b, link(a) as to_a, link(b) as to_b:
        await to_a.set_routes([b.route()])
        await to_b.set_routes([a.route()])
        await to_a.open_session(rig.rule(A, B))
        await to_b.open_session(rig.rule(A, B))
        assert (await Container(client, a.platform).push(B, b"hello")).code == OK
        assert await to_a.sent_bytes(rig.SID) == {B: 5}
        assert await to_b.sent_bytes(rig.SID) == {}
        stats = await to_b.stats()
        assert (stats["sessions"], stats["pushed_in"], stats["partners"]) == (1, 1, 1)
        # A changed rule keeps what waits.
        await to_b.open_session(rig.rule(A, B, token="second"))
        assert (await Container(client, b.platform).pop()).code == "E0000000403"
        assert (await Container(client, b.platform).pop(token="second")).payload == b"hello"
        # A control process that has started anew says everything; what it does not name has ended.
        await to_b.replace_all([a.route()], [rig.rule(A, B, session="other")])
        assert (await to_b.stats())["sessions"] == 1
        assert (await Container(client, b.platform).pop()).code == "E0000000608"
        await to_a.close_session(rig.SID)
        await to_a.close_session(SessionId("never"))
        assert await to_a.sent_bytes(rig.SID) == {B: 5}
        assert (await Container(client, a.platform).push(B, b"x")).code == "E0000000608"


async def test_a_starting_process_pulls_everything(client: aiohttp.ClientSession) -> None:
    async with node("LX-A") as a, node("LX-B") as b:
        await b.process.set_routes([a.route()])
        b.process.channel.open_session(rig.rule(A, B))
        await a.process.stop()
        a.control.routes, a.control.rules = [b.route()], [rig.rule(A, B)]
        again = build(a.process._settings)
        ports = await again.start()
        try:
            assert (await Container(client, f"http://127.0.0.1:{ports.platform}").push(B, b"x")).code == OK
        finally:
            await again.stop()


async def test_a_call_waits_for_a_process_that_starts() -> None:
    async with node("LX-A") as a, link(a) as to_a:
        await a.process.stop()
        telling = asyncio.create_task(to_a.open_session(rig.rule(A, B)))
        await asyncio.sleep(0.1)
        assert not telling.done()
        again = build(a.process._settings)
        await again.start()
        try:
            await telling
            assert again.stats()["sessions"] == 1
        finally:
            await again.stop()
        impatient = DataPlaneLink(a.folder, wait_s=0.1)
        with pytest.raises(Unavailable) as caught:
            await impatient.open_session(rig.rule(A, B))
        assert caught.value.kind is Kind.OVERLOADED
        await impatient.close()


async def test_the_link_refuses_nonsense() -> None:
    async with node("LX-A") as a, link(a) as to_a:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(a.folder / DATA_SOCKET))) as session:
            for path, body in [
                ("/link/routes", b'{"routes":[{"node_id":1}]}'),
                ("/link/routes", b"{}"),
                ("/link/sessions", b'{"session_id":"s","nodes":[1],"tokens":{},"outgoing":{}}'),
                ("/link/sessions", b"[]"),
                ("/link/sessions", b"?"),
                ("/link/other", b"{}"),
            ]:
                async with session.post(f"http://link{path}", data=body) as response:
                    assert response.status == 400
        assert (await to_a.stats())["sessions"] == 0


def build(settings: DataSettings) -> DataProcess:
    return DataProcess(settings, journal=rig.ListJournal(), clock=SystemClock(), entropy=SystemEntropy())


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_the_platform_listener_stays_on_loopback(host: str) -> None:
    with rig.folder() as path:
        with pytest.raises(CallerError):
            build(rig.settings(path, A, platform_host=host))
        build(rig.settings(path, A, platform_host=host, insecure_platform_nonloopback=True))
        build(rig.settings(path, A, platform_host="::1"))


def test_a_run_folder_that_others_may_enter_is_refused() -> None:
    with rig.folder() as path:
        path.chmod(0o755)
        with pytest.raises(CallerError):
            build(rig.settings(path, A))


def test_the_standards_port_is_the_default() -> None:
    assert DataSettings.__dataclass_fields__["edge_port"].default == 7304


async def test_a_malformed_snapshot_stops_the_start() -> None:
    async with node("LX-A") as a:
        await a.process.stop()
        a.control.rules = [replace(rig.rule(A), nodes=(7,))]  # type: ignore[arg-type]
        again = build(a.process._settings)
        with pytest.raises(ProtocolViolation):
            await again.start()
        await again.stop()
        assert not (a.folder / "data.json").exists()


async def test_sigterm_answers_who_waits(client: aiohttp.ClientSession) -> None:
    """A real process (with uvloop where installed): ready file, service, and a graceful end."""
    async with node("LX-B") as b:
        with rig.folder() as path:
            ca = rig.authority()
            rig.issue(path, ca, rig.urn(A))
            control = FakeControl(path, routes=[b.route()], rules=[rig.rule(A, B)])
            await control.start()
            root = Path(__file__).parents[2]
            env = {**os.environ, "PYTHONPATH": str(root)}
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", MAIN, str(path), A, cwd=root, env=env)
            try:
                ready = path / "data.json"
                async with asyncio.timeout(20):
                    while not ready.exists():
                        assert process.returncode is None
                        await asyncio.sleep(0.02)
                ports = json.loads(ready.read_text())
                assert ports["pid"] == process.pid
                here = Container(client, f"http://127.0.0.1:{ports['platform_port']}", "proto")
                large = os.urandom(3 << 20)
                assert (await here.push(A, large)).code == OK
                assert (await here.pop()).payload == large
                # Both ways over TLS, so that what is read of a handshake is read under this loop too.
                edge = f"https://127.0.0.1:{ports['edge_port']}"
                await b.process.set_routes([replace(b.route(), node_id=A, address=edge, tls_ca=ca.pem)])
                b.process.channel.open_session(rig.rule(A, B))
                there = Container(client, b.platform)
                assert (await here.push(B, large)).code == OK
                assert (await there.pop()).payload == large
                assert (await there.push(A, large)).code == OK
                assert (await here.pop()).payload == large
                waiting = asyncio.create_task(here.pop(wait_ms=60_000))
                stats = DataPlaneLink(path, wait_s=3)
                while not (await stats.stats())["waiting"]:  # noqa: ASYNC110  # another process's state
                    await asyncio.sleep(0.01)
                await stats.close()
                process.send_signal(signal.SIGTERM)
                got = await waiting
                assert (got.code, got.payload) == (OK, None)
                assert await asyncio.wait_for(process.wait(), 8) == 0
                assert not ready.exists()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
                await control.stop()
