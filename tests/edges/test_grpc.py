"""Containers and partners that speak gRPC: the table of requests of the HTTP fronts, and what only gRPC has."""

import os

import aiohttp
import pytest

from gateway.model import NodeId
from gateway.ports import PeerRoute
from tests.edges import rig, test_authorisation, test_channel
from tests.edges.rig import Container, pair

OK = "E0000000000"
A, B, C = NodeId("LX-A"), NodeId("LX-B"), NodeId("LX-C")


@pytest.fixture(autouse=True)
def _spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test does not say otherwise is said in gRPC."""
    monkeypatch.setattr(rig, "USUAL", "grpc")


# The same requests, told to the other front.
test_order_and_isolation = test_channel.test_order_and_isolation
test_pop_may_come_first = test_channel.test_pop_may_come_first
test_peek = test_channel.test_peek
test_two_readers_never_get_one_message = test_channel.test_two_readers_never_get_one_message
test_a_reader_that_left_takes_no_message = test_channel.test_a_reader_that_left_takes_no_message
test_release = test_channel.test_release
test_whose_id_a_pop_may_name = test_channel.test_whose_id_a_pop_may_name
test_a_pop_that_names_a_source_gets_no_others = test_channel.test_a_pop_that_names_a_source_gets_no_others
test_a_full_queue = test_channel.test_a_full_queue
test_tokens_on_the_way_out = test_channel.test_tokens_on_the_way_out
test_an_unreachable_partner = test_channel.test_an_unreachable_partner
test_a_push_waits_for_the_partners_task = test_channel.test_a_push_waits_for_the_partners_task
test_a_closed_session = test_channel.test_a_closed_session
test_idle_sessions_without_tasks_expire = test_channel.test_idle_sessions_without_tasks_expire
test_a_split_sequence_is_ordinary_topics = test_channel.test_a_split_sequence_is_ordinary_topics
test_where_a_container_may_send = test_authorisation.test_where_a_container_may_send
test_what_a_partner_may_send = test_authorisation.test_what_a_partner_may_send


def over_grpc(one: rig.Node) -> PeerRoute:
    return one.route(address=one.edge.replace("https", "grpcs"))


@pytest.mark.req("T-034", "T-035", "T-036")
@pytest.mark.parametrize("reader", ["grpc", "json", "raw"])
@pytest.mark.parametrize("writer", ["grpc", "json", "raw"])
@pytest.mark.parametrize("between", ["grpc", "http"])
async def test_bytes_arrive_as_sent(client: aiohttp.ClientSession, between: str, writer: str, reader: str) -> None:
    """Each side speaks what it speaks, and so do the gateways between them."""
    async with pair() as (a, b):
        if between == "grpc":
            await a.process.set_routes([over_grpc(b)])
        push, pop = Container(client, a.platform, writer), Container(client, b.platform, reader)
        for version in ("", "1"):
            for size in (0, 1, 255, 65536):
                payload = os.urandom(size)
                assert (await push.push(B, payload, x_ptp_version=version)).code == OK
                got = await pop.pop(B)
                assert (got.status, got.code, got.payload or b"") == (200, OK, payload)
        large = os.urandom(5 << 20)
        assert (await push.push(B, large)).code == OK
        assert (await pop.pop()).payload == large
        assert a.process.stats()["bytes_held"] == b.process.stats()["bytes_held"] == 0
        assert b.process._edge_grpc._room.used == a.process._platform_grpc._room.used == 0
