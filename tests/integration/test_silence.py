"""Messages of a declared session between two real gateways: no file that a gateway keeps or prints holds any of it."""

import aiohttp
import pytest

from tests.edges.rig import Container
from tests.edges.test_silence import PAYLOAD, TOKENS, silent
from tests.integration.rig import Rig

OK = "E0000000000"
SESSION = "declared-and-silent"


@pytest.mark.req("T-047")
async def test_logs_trail_and_database_hold_nothing_of_a_message(rig: Rig) -> None:
    more = {"session": SESSION, "token": TOKENS[0]}
    for side, other in ((rig.bank, rig.payment), (rig.payment, rig.bank)):
        side.client.post("sessions", session_id=SESSION, nodes=[other.node_id])
    try:
        async with aiohttp.ClientSession() as client:
            for dialect in ("json", "proto", "raw", "grpc"):
                here = Container(client, rig.bank.node.platform_url, dialect)
                there = Container(client, rig.payment.node.platform_url, dialect)
                assert (await here.push(rig.payment.node_id, PAYLOAD, **more)).code == OK
                assert (await there.pop(**more)).payload == PAYLOAD
                wrong = {"session": "no-such-session", "token": TOKENS[1]}
                assert (await here.push(rig.payment.node_id, PAYLOAD, **wrong)).code != OK
        # It did pass, the token unchanged: the tap between the two has seen both.
        seen = rig.raw()
        assert PAYLOAD in seen
        assert TOKENS[0].encode() in seen
        passed = rig.payment.client.get("channel")
        (session,) = (each for each in passed["sessions"] if each["session_id"] == SESSION)
        assert (session["messages_in"], session["bytes_in"], session["read"]) == (4, 4 * len(PAYLOAD), 4)
        assert [each["node_id"] for each in session["nodes"]] == [rig.bank.node_id]
    finally:
        for side in rig.sides:
            side.client.post("sessions", "close", session_id=SESSION)
    for side in rig.sides:
        assert SESSION in side.logs()
        files = [file for file in side.folder.rglob("*") if file.is_file()]
        assert {"state.db", "gateway.log"} <= {file.name for file in files}
        for file in files:
            silent(file.read_text(encoding="latin-1"))
        silent(str(side.events()))
        silent(str(side.client.get("channel")))
