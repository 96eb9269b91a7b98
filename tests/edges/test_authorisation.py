"""Who may use a session, from both sides; every refusal leaves no message behind."""

from dataclasses import replace

import aiohttp
import pytest

from gateway.model import NodeId, SessionId
from gateway.runtime.system import SystemClock
from tests.edges import rig
from tests.edges.rig import SID, Container, Node, ew_headers, inbound, invoke, issue, node, pair, urn

OK = "E0000000000"
A, B, C = NodeId("LX-A"), NodeId("LX-B"), NodeId("LX-C")


def held(one: Node) -> int:
    count: int = one.process.stats()["bytes_held"]
    return count


@pytest.mark.req("T-047")
@pytest.mark.parametrize("token", [None, "", "wrong", rig.PERMIT, "*"])
async def test_a_container_needs_its_tasks_token(client: aiohttp.ClientSession, token: str | None) -> None:
    async with pair() as (a, b):
        await Container(client, a.platform).push(B, b"there")
        for dialect in ("json", "proto", "raw"):
            one, other = Container(client, a.platform, dialect), Container(client, b.platform, dialect)
            assert (await one.push(B, b"x", token=token)).code == "E0000000403"
            assert (await one.push(A, b"x", token=token)).code == "E0000000403"
            got = await other.pop(token=token, wait_ms=0)
            assert (got.code, got.payload) == ("E0000000403", None)
        assert (await Container(client, b.platform).peek(token=token)).code == "E0000000403"
        assert (await Container(client, b.platform).release(token=token)).code == "E0000000403"
        assert held(a) == 0
        assert (await Container(client, b.platform).pop()).payload == b"there"


async def test_a_token_opens_its_own_session_only(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b):
        a.process.channel.open_session(rig.rule(A, B, session="other", token="other's"))
        assert (await Container(client, a.platform).push(B, b"x", session="other")).code == "E0000000403"
        assert (await Container(client, a.platform).push(B, b"x", session="unknown")).code == "E0000000403"
        assert held(b) == 0


async def test_a_session_whose_tasks_have_ended_is_shut(client: aiohttp.ClientSession) -> None:
    """A rule without any token is not a session for everybody."""
    async with pair() as (a, _):
        ended = rig.rule(A, B)
        a.process.channel.open_session(type(ended)(ended.session_id, ended.nodes, {}, {}))
        for token in (rig.TOKEN, None, "*"):
            assert (await Container(client, a.platform).push(B, b"x", token=token)).code == "E0000000403"


@pytest.mark.req("T-012")
async def test_where_a_container_may_send(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b), node("LX-C") as c:
        push = Container(client, a.platform)
        assert (await push.push(C, b"x")).code == "E0000000618"
        assert (await push.pop(C, wait_ms=0)).code == "E0000000618"
        await a.process.set_routes([b.route(), c.route()])
        assert (await push.push(C, b"x")).code == "E0000000403"
        # A node of the session, but the contract with it has ended.
        a.process.channel.open_session(rig.rule(A, B, C))
        await a.process.set_routes([b.route()])
        assert (await push.push(C, b"x")).code == "E0000000618"
        assert (await push.push(A, b"to myself")).code == OK
        assert (await push.pop()).payload == b"to myself"


@pytest.mark.req("T-053")
async def test_what_a_partner_may_send(client: aiohttp.ClientSession) -> None:
    """B has two partners, A and C; the session is A's and B's."""
    async with pair() as (a, b), node("LX-C") as c:
        await b.process.set_routes([a.route(), c.route()])
        b.process.channel.open_session(rig.rule(A, B))
        b.process.channel.open_session(rig.rule(B, C, session="with C"))
        b.process.channel.open_session(rig.rule(A, B, C, session="all three"))
        cases = [
            # Somebody else's name, a session one is not in, a session nobody knows (yet).
            (c.files, ew_headers(A, B), "E0000000403"),
            (c.files, ew_headers(C, B), "E0000000403"),
            (c.files, ew_headers(A, B, session="all three"), "E0000000403"),
            (a.files, ew_headers(A, B, session="with C"), "E0000000403"),
            (a.files, ew_headers(A, B, session="unknown"), "E0000000503"),
            # Misaddressed; come back to where it began; incomplete.
            (a.files, ew_headers(A, C), "E0000000404"),
            (a.files, ew_headers(B, B), "E0000000503"),
            (a.files, ew_headers(B, A), "E0000000503"),
            (a.files, ew_headers(A, B, x_ptp_source_node_id=""), "E0000000400"),
            (a.files, ew_headers(A, B, x_ptp_target_node_id=""), "E0000000400"),
            (a.files, ew_headers(A, B, x_ptp_session_id=""), "E0000000400"),
        ]
        for files, headers, code in cases:
            assert (await invoke(client, b, files, headers, inbound(b"x"))).code == code
        assert held(b) == 0
        assert (await invoke(client, b, a.files, ew_headers(A, B), inbound(b"x"))).code == OK
        assert (await invoke(client, b, c.files, ew_headers(C, B, session="with C"), inbound(b"x"))).code == OK


async def test_another_name_of_a_session_is_for_whom_it_was_given(client: aiohttp.ClientSession) -> None:
    """A calls B's session otherwise; C, a partner too, gains nothing by that name, and it ends with the session."""
    async with pair() as (a, b), node("LX-C") as c:
        await b.process.set_routes([a.route(), c.route()])
        ours = rig.rule(A, B)
        (digest,) = ours.tokens
        b.process.channel.open_session(replace(ours, aliases={digest: {A: SessionId("theirs")}}))
        called = {"session": "theirs"}
        assert (await invoke(client, b, c.files, ew_headers(C, B, **called), inbound(b"x"))).code == "E0000000503"
        assert (await invoke(client, b, a.files, ew_headers(A, B, **called), inbound(b"x"))).code == OK
        assert (await Container(client, b.platform).pop()).payload == b"x"
        # Outwards, and only towards A: the container never says the name itself.
        a.process.channel.close_session(SessionId(SID))
        a.process.channel.open_session(rig.rule(A, B, session="theirs"))
        assert (await Container(client, b.platform).push(A, b"back")).code == OK
        assert (await Container(client, a.platform).pop(session="theirs")).payload == b"back"
        b.process.channel.open_session(ours)
        assert (await invoke(client, b, a.files, ew_headers(A, B, **called), inbound(b"x"))).code == "E0000000503"


async def test_a_partner_without_certificate(client: aiohttp.ClientSession) -> None:
    async with pair() as (_, b):
        got = await invoke(client, b, None, ew_headers(A, B), inbound(b"x"))
        assert got.code == "E0000000615"
        assert held(b) == 0


async def test_a_certificate_of_an_unknown_ca(client: aiohttp.ClientSession) -> None:
    """A stranger's CA, bearing the very name of the pinned one, does not get through the handshake."""
    async with pair() as (a, b):
        stranger = rig.authority(a.ca.certificate.subject.rfc4514_string().removeprefix("CN="))
        assert stranger.certificate.subject == a.ca.certificate.subject
        files = issue(b.folder, stranger, urn(A), name="stranger")
        with pytest.raises(aiohttp.ClientError):
            await invoke(client, b, files, ew_headers(A, B), inbound(b"x"))
        assert held(b) == 0


async def test_a_ca_may_name_no_other_node(client: aiohttp.ClientSession) -> None:
    """C's CA is pinned for C; a leaf of it that names A proves nothing, nor one that names two nodes or none."""
    async with pair() as (a, b), node("LX-C") as c:
        await b.process.set_routes([a.route(), c.route()])
        for number, uris in enumerate([(urn(A),), (urn(A), urn(C)), (), ("urn:interconn:node:",)]):
            files = issue(b.folder, c.ca, *uris, name=f"c{number}")
            assert (await invoke(client, b, files, ew_headers(A, B), inbound(b"x"))).code == "E0000000615"
        assert held(b) == 0


async def test_a_ca_with_another_partners_name_is_not_pinned(client: aiohttp.ClientSession) -> None:
    """It would be found first and shut that partner out; the one pinned earlier stays, in whatever order they come."""
    async with (
        node("LX-A", ca_name="The CA") as a,
        node("LX-B") as b,
        node("LX-0", ca_name="the  ca") as c,
    ):
        b.process.channel.open_session(rig.rule(A, B, c.node_id))
        assert not await b.process.set_routes([a.route()])
        for routes in ([a.route(), c.route()], [c.route(), a.route()]):
            problems = await b.process.set_routes(routes)
            assert len(problems) == 1
            assert "LX-0" in problems[0]
            async with aiohttp.ClientSession() as fresh:
                assert (await invoke(fresh, b, a.files, ew_headers(A, B), inbound(b"x"))).code == OK
                with pytest.raises(aiohttp.ClientError):
                    await invoke(fresh, b, c.files, ew_headers("LX-0", B), inbound(b"x"))


async def test_an_expired_certificate(client: aiohttp.ClientSession) -> None:
    async with pair() as (a, b):
        files = issue(b.folder, a.ca, urn(A), days=-1, name="old")
        with pytest.raises(aiohttp.ClientError):
            await invoke(client, b, files, ew_headers(A, B), inbound(b"x"))
        # One that expires while its connection stands is refused at its next request.
        tls, url = rig.partner_tls(a.files), f"{b.edge}{rig.CHAN}invoke"
        for clock, code in [(SystemClock(), OK), (Later(), "E0000000615")]:
            b.process._edge._clock = clock
            assert (await rig.post(client, url, ew_headers(A, B), inbound(b""), "proto", ssl=tls)).code == code


class Later(SystemClock):
    """Two days on."""

    def now_ms(self) -> int:
        return super().now_ms() + 2 * 86_400_000


async def test_a_partner_under_another_ca_is_not_talked_to(client: aiohttp.ClientSession) -> None:
    """The other end must show a leaf for the partner under the pinned CA before a byte of the request leaves."""
    async with pair() as (a, b), node("LX-C") as c:
        impostor = b.route(address=c.edge)
        renamed = b.route(address=c.edge, tls_ca=c.ca.pem)
        for route in (impostor, renamed):
            await a.process.set_routes([route])
            assert (await Container(client, a.platform).push(B, b"x")).code == "E0000000615"
        assert c.journal.events[-1]["event"] == "data.ready"


@pytest.mark.parametrize(
    "changes", [{"address": "http://127.0.0.1:1"}, {"address": ""}, {"tls_ca": ""}, {"tls_ca": "nonsense"}]
)
async def test_a_route_that_is_not_safe_is_no_route(client: aiohttp.ClientSession, changes: dict[str, str]) -> None:
    async with pair() as (a, b):
        problems = await a.process.set_routes([b.route(**changes)])
        assert len(problems) == 1
        assert (await Container(client, a.platform).push(B, b"x")).code == "E0000000618"
