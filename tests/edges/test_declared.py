"""Sessions without a job: declared by an admin for named partners, one by its id or all whose ids begin alike."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest

from gateway.data_plane.core.declared import Declared
from gateway.data_plane.io.link import rule_from_json, rule_to_json
from gateway.errors import Kind, ProtocolViolation, Unavailable
from gateway.model import Limits, NodeId, SessionId
from gateway.ports import SessionRule
from tests.edges.rig import Container, Got, Node, ew_headers, inbound, invoke, node
from tests.waiting import eventually

A, B, C = NodeId("LX-A"), NodeId("LX-B"), NodeId("LX-C")
OK, NOT_YET, FORBIDDEN, RELEASED = "E0000000000", "E0000000503", "E0000000403", "E0000000608"
ONE = "session_202611220001"


def beginning(*nodes: NodeId, text: str = "session_", until: int | None = None) -> SessionRule:
    return SessionRule(SessionId(text), nodes, {"*": ""}, {}, prefix=True, until=until)


class Trio:
    """Node B, beside which a product makes its own sessions, and its partners A and C, in the test's hands."""

    def __init__(self, client: aiohttp.ClientSession, a: Node, b: Node, c: Node) -> None:
        self.client, self.a, self.b, self.c = client, a, b, c
        self.local = Container(client, b.platform)
        self.channel = b.process.channel

    async def sends(self, partner: Node, session: str = ONE) -> Got:
        headers = ew_headers(partner.node_id, B, session=session)
        return await invoke(self.client, self.b, partner.files, headers, inbound(b"from " + partner.node_id.encode()))


@pytest.fixture
async def trio(client: aiohttp.ClientSession) -> AsyncIterator[Trio]:
    limits = replace(Limits(), session_idle_s=0.2)
    async with node("LX-A") as a, node("LX-B", limits=limits) as b, node("LX-C") as c:
        await b.process.set_routes([a.route(), c.route()])
        yield Trio(client, a, b, c)


@pytest.mark.req("T-046", "T-047")
async def test_a_session_opens_for_the_partner_that_a_container_names(trio: Trio) -> None:
    """Both partners are declared; in this session our container works with A, so C cannot fill it."""
    trio.channel.open_session(beginning(A, C))
    assert (await trio.sends(trio.a)).code == NOT_YET  # which a gateway repeats
    assert (await trio.local.pop(A, wait_ms=0, session=ONE)).payload is None
    assert (await trio.sends(trio.a)).code == OK
    assert (await trio.sends(trio.c)).code == NOT_YET
    assert (await trio.local.pop(A, session=ONE)).payload == b"from LX-A"
    # Another session of the same product, with C, and one with both.
    assert (await trio.local.pop(C, wait_ms=0, session="session_2")).payload is None
    assert (await trio.sends(trio.c, "session_2")).code == OK
    assert (await trio.sends(trio.a, "session_2")).code == NOT_YET
    await trio.local.pop(A, wait_ms=0, session="session_2")
    assert (await trio.sends(trio.a, "session_2")).code == OK
    assert (await trio.local.pop(C, session="session_2")).payload == b"from LX-C"
    assert (await trio.local.pop(A, session="session_2")).payload == b"from LX-A"


async def test_a_read_of_anybody_lets_in_everybody_declared(trio: Trio) -> None:
    trio.channel.open_session(beginning(A))
    assert (await trio.local.pop(wait_ms=0, session=ONE)).payload is None
    assert (await trio.sends(trio.a)).code == OK
    assert (await trio.sends(trio.c)).code == FORBIDDEN


async def test_what_no_declaration_covers(trio: Trio) -> None:
    trio.channel.open_session(beginning(A))
    assert (await trio.local.pop(wait_ms=0, session="other")).code == FORBIDDEN
    assert (await trio.local.pop(wait_ms=0, session="session_")).code == FORBIDDEN  # the bare beginning
    assert (await trio.local.push(C, b"x", session=ONE)).code == FORBIDDEN
    assert (await trio.sends(trio.c)).code == FORBIDDEN
    assert trio.b.process.stats()["sessions"] == 0


async def test_what_a_container_says_to_itself_lets_in_nobody(trio: Trio) -> None:
    trio.channel.open_session(beginning(A))
    assert (await trio.local.push(B, b"mine", session=ONE)).code == OK
    assert (await trio.sends(trio.a)).code == NOT_YET


@pytest.mark.req("T-049")
async def test_a_session_that_is_not_used_ends_and_may_begin_again(trio: Trio) -> None:
    trio.channel.open_session(beginning(A))
    await trio.local.pop(A, wait_ms=0, session=ONE)
    assert (await trio.sends(trio.a)).code == OK
    await asyncio.sleep(0.25)
    trio.channel.expire()
    assert trio.b.process.stats()["sessions"] == 0
    assert trio.b.process.stats()["bytes_held"] == 0
    assert (await trio.sends(trio.a)).code == NOT_YET
    assert (await trio.local.pop(A, wait_ms=0, session=ONE)).code == OK
    assert (await trio.sends(trio.a)).code == OK


async def test_closing_a_beginning_closes_what_began(trio: Trio) -> None:
    trio.channel.open_session(beginning(A))
    waiting = asyncio.create_task(trio.local.pop(A, session=ONE))
    await eventually(lambda: trio.b.process.stats()["waiting"] == 1)
    trio.channel.close_session(SessionId("session_"))
    assert (await waiting).code == RELEASED
    assert (await trio.local.pop(A, wait_ms=0, session=ONE)).code == RELEASED
    assert (await trio.sends(trio.a)).code == RELEASED


async def test_a_snapshot_keeps_what_began_under_a_beginning_that_stays(trio: Trio) -> None:
    trio.channel.open_session(beginning(A))
    await trio.local.pop(A, wait_ms=0, session=ONE)
    trio.channel.keep_sessions({SessionId("session_"): beginning(A)})
    assert (await trio.sends(trio.a)).code == OK
    trio.channel.keep_sessions({})
    assert (await trio.sends(trio.a)).code == RELEASED


@pytest.mark.parametrize("prefix", [False, True])
async def test_a_declaration_ends_with_its_time(trio: Trio, *, prefix: bool) -> None:
    """The data process sees to it alone, and drops what was still waiting."""
    rule = beginning(B, A, text="session_" if prefix else ONE)
    trio.channel.open_session(replace(rule, prefix=prefix, until=2**60))
    await trio.local.pop(A, wait_ms=0, session=ONE)
    assert (await trio.sends(trio.a)).code == OK
    trio.channel.open_session(replace(rule, prefix=prefix, until=1))
    if prefix:
        trio.channel.expire()
    assert (await trio.local.pop(A, wait_ms=0, session=ONE)).code != OK
    assert (await trio.sends(trio.a)).code != OK
    assert trio.b.process.stats()["bytes_held"] == 0


async def test_a_partner_that_is_taken_out_is_out_of_what_began(trio: Trio) -> None:
    trio.channel.open_session(beginning(A, C))
    await trio.local.pop(wait_ms=0, session=ONE)
    await trio.local.pop(C, wait_ms=0, session="session_2")
    trio.channel.open_session(beginning(C))
    assert (await trio.sends(trio.a)).code == FORBIDDEN
    assert (await trio.sends(trio.c, "session_2")).code == OK


def test_our_containers_cannot_open_without_end() -> None:
    declared = Declared(own=B, most=2)
    declared.put(beginning(A))
    for text in ("session_1", "session_2", "session_1"):
        assert declared.named(SessionId(text), A, None, reads=True, now=0.0, now_ms=0) is not None
    with pytest.raises(Unavailable) as raised:
        declared.named(SessionId("session_3"), A, None, reads=True, now=0.0, now_ms=0)
    assert raised.value.kind is Kind.TOO_MANY
    declared.forget(SessionId("session_1"))
    assert declared.named(SessionId("session_3"), A, None, reads=True, now=0.0, now_ms=0) is not None


def test_on_the_link() -> None:
    for until in (None, 5):
        rule = beginning(A, until=until)
        assert rule_from_json(rule_to_json(rule)) == rule
    with pytest.raises(ProtocolViolation):
        rule_from_json({**rule_to_json(beginning(A)), "until": "soon"})
