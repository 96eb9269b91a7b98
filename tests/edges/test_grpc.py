"""Containers and partners that speak gRPC: the table of requests of the HTTP fronts, and what only gRPC has."""

import pytest

from gateway.model import NodeId
from tests.edges import rig, test_authorisation, test_channel

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
