"""Messages that the SDK of mesh has split over topics."""

import asyncio
import os
import time

import pytest

from gateway.model import NodeId
from gateway.sdk.channel import Channel, Line
from gateway.sdk.environment import Address
from gateway.sdk.result import Code, ComponentError
from gateway.sdk.split import pop_split, push_split, topic_of
from tests.edges import rig
from tests.edges.rig import pair

HERE = Address("LX-A", "")


class Topics:
    """Topics in memory."""

    def __init__(self, **topics: list[bytes]) -> None:
        self.topics = {name.replace("_", "-"): list(messages) for name, messages in topics.items()}

    def push(self, topic: str, *parts, to: Address, deadline: float) -> None:
        self.topics.setdefault(topic, []).append(b"".join(parts))

    def pop(self, topic: str, *, source: Address, wait_ms: int, deadline: float) -> memoryview | None:
        waiting = self.topics.get(topic)
        return memoryview(waiting.pop(0)) if waiting else None


@pytest.mark.req("T-052")
@pytest.mark.parametrize("size", [1, 10, 11, 25])
def test_pieces_are_put_together(size: int) -> None:
    line, body = Topics(), os.urandom(size)
    push_split(line, "t", body, to=HERE, deadline=1e12, piece_bytes=10)
    assert line.topics["t-mesh-split-0"] == [str(-(-size // 10)).encode()]
    assert bytes(pop_split(line, "t", source=HERE, wait_ms=1, deadline=1e12) or b"") == body
    assert pop_split(line, "t", source=HERE, wait_ms=1, deadline=1e12) is None


@pytest.mark.req("T-052")
def test_a_sequence_passes_two_gateways_as_ordinary_topics() -> None:
    async def through() -> None:
        body = os.urandom(100_000)
        async with pair() as (a, b):

            def channel(at: rig.Node) -> Channel:
                return Channel(Line(f"127.0.0.1:{at.ports.platform}", rig.SID, "trace-1", rig.TOKEN))

            def send() -> None:
                push_split(
                    channel(a), "t", body, to=Address("LX-B", ""), deadline=time.monotonic() + 10, piece_bytes=30_000
                )

            def receive() -> None:
                got = pop_split(
                    channel(b), "t", source=Address("LX-A", ""), wait_ms=10_000, deadline=time.monotonic() + 10
                )
                assert bytes(got or b"") == body

            await asyncio.gather(asyncio.to_thread(send), asyncio.to_thread(receive))
            seen = {e["topic"] for e in b.events("chan.pop")}
            assert seen == {topic_of("t", n) for n in range(5)}
            assert NodeId("LX-A") in {e["peer"] for e in b.events("chan.pop")}

    asyncio.run(through())


def test_an_empty_message_cannot_be_split() -> None:
    with pytest.raises(ComponentError) as refused:
        push_split(Topics(), "t", b"", to=HERE, deadline=1e12)
    assert refused.value.code == Code.BAD_INPUT


@pytest.mark.parametrize(
    ("topics", "problem"),
    [
        ({"t_mesh_split_0": [b"0"]}, "not a number"),
        ({"t_mesh_split_0": [b"-1"]}, "not a number"),
        ({"t_mesh_split_0": [b"9999999"]}, "not a number"),
        ({"t_mesh_split_0": [b"2" * 100]}, "not a number"),
        ({"t_mesh_split_0": [b""]}, "not a number"),
        ({"t_mesh_split_0": [b"2"], "t_mesh_split_1": [b"a"]}, "piece 2 of 2 is missing"),
        ({"t_mesh_split_0": [b"2"], "t_mesh_split_1": [b"a" * 60], "t_mesh_split_2": [b"a" * 60]}, "longer than"),
    ],
)
def test_a_sequence_that_is_wrong_is_refused(topics, problem: str) -> None:
    with pytest.raises(ComponentError, match=problem) as refused:
        pop_split(Topics(**topics), "t", source=HERE, wait_ms=1, deadline=0, max_bytes=100)
    assert refused.value.code == Code.PARTNER_VIOLATION
