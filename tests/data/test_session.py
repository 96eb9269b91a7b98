"""The queue core: order, isolation, one receiver, release, bounds and idleness."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.data_plane.core.budget import MESSAGE_OVERHEAD, Budget
from gateway.data_plane.core.ledger import SentBytes
from gateway.data_plane.core.session import Queues
from gateway.errors import Kind, Unavailable
from gateway.model import NodeId, SessionId

S, S2 = SessionId("s-1"), SessionId("s-2")
A, B = NodeId("LX-A"), NodeId("LX-B")


def queues(*, process: int = 1 << 20, session: int = 1 << 20, topics: int = 8, keeps: bool = False) -> Queues:
    return Queues(Budget(process_bytes=process, session_bytes=session), session_topics=topics, peek_keeps=keeps)


def take(q: Queues, session: SessionId = S, topic: str = "t", source: NodeId | None = None) -> bytes | None:
    message = q.pop(session, topic, source=source, now=0.0)
    if message is None:
        return None
    q.done(message)
    assert message.payload is not None
    return bytes(message.payload)


@pytest.mark.req("T-014")
def test_order_is_that_of_push() -> None:
    q = queues()
    for n in range(50):
        q.push(S, "t", A if n % 3 else B, bytes([n]), now=0.0)
    assert [take(q) for _ in range(51)] == [*(bytes([n]) for n in range(50)), None]


@pytest.mark.req("T-015", "T-016")
def test_topics_and_sessions_do_not_mix() -> None:
    q = queues()
    q.push(S, "a", A, b"1", now=0.0)
    q.push(S, "b", A, b"2", now=0.0)
    q.push(S2, "a", A, b"3", now=0.0)
    q.push(S, "", A, b"4", now=0.0)
    assert (take(q, S, "b"), take(q, S2, "a"), take(q, S, ""), take(q, S, "a")) == (b"2", b"3", b"4", b"1")
    assert len(q) == 0


@pytest.mark.req("T-046")
def test_a_reader_may_ask_for_one_source() -> None:
    q = queues()
    q.push(S, "t", A, b"1", now=0.0)
    q.push(S, "t", B, b"2", now=0.0)
    q.push(S, "t", A, b"3", now=0.0)
    assert take(q, source=B) == b"2"
    assert take(q, source=B) is None
    assert (take(q), take(q, source=A)) == (b"1", b"3")


@pytest.mark.req("T-023")
def test_a_message_goes_out_once() -> None:
    q = queues()
    q.push(S, "t", A, b"1", now=0.0)
    assert [take(q), take(q)] == [b"1", None]


@pytest.mark.req("T-021", "T-022")
def test_peek_consumes_or_keeps_as_declared() -> None:
    for keeps, after in [(False, b"2"), (True, b"1")]:
        q = queues(keeps=keeps)
        assert q.peek(S, "t", source=None, now=0.0) is None
        q.push(S, "t", A, b"1", now=0.0)
        q.push(S, "t", A, b"2", now=0.0)
        seen = q.peek(S, "t", source=None, now=0.0)
        assert seen is not None
        assert seen.payload == b"1"
        assert take(q) == after


@pytest.mark.req("T-024", "T-025", "T-026")
def test_release_drops_a_topic_or_all() -> None:
    budget = Budget(process_bytes=1 << 20, session_bytes=1 << 20)
    q = Queues(budget, session_topics=8, peek_keeps=False)
    for topic in ("a", "b", "c"):
        q.push(S, topic, A, b"x", now=0.0)
    q.push(S2, "a", A, b"y", now=0.0)
    assert q.release(S, "b") == 1
    assert [q.peek(S, t, source=None, now=0.0) is not None for t in ("a", "b")] == [True, False]
    q.push(S, "a", A, b"x", now=0.0)
    assert q.release(S) == 2
    assert q.release(S) == 0
    assert q.release(SessionId("never")) == 0
    assert budget.used == 1 + MESSAGE_OVERHEAD
    q.push(S, "a", A, b"new", now=0.0)
    assert take(q, topic="a") == b"new"


@pytest.mark.req("T-028")
def test_a_full_queue_refuses_and_changes_nothing() -> None:
    q = queues(session=2 * (MESSAGE_OVERHEAD + 10))
    q.push(S, "t", A, bytes(10), now=0.0)
    q.push(S, "u", A, bytes(10), now=0.0)
    with pytest.raises(Unavailable) as caught:
        q.push(S, "v", A, b"", now=0.0)
    assert (caught.value.kind, caught.value.wire.transport) == (Kind.BUFFER_FULL, "E0000000700")
    assert q.depth(S) == 2
    q.push(S2, "t", A, bytes(10), now=0.0)
    assert take(q) == bytes(10)
    q.push(S, "v", A, b"", now=0.0)


def test_the_process_has_a_bound_too() -> None:
    q = queues(process=MESSAGE_OVERHEAD + 10)
    q.push(S, "t", A, bytes(10), now=0.0)
    with pytest.raises(Unavailable):
        q.push(S2, "t", A, b"", now=0.0)


def test_topics_are_bounded_by_those_with_unread_messages() -> None:
    q = queues(topics=2)
    q.push(S, "a", A, b"", now=0.0)
    q.push(S, "b", A, b"", now=0.0)
    with pytest.raises(Unavailable) as caught:
        q.push(S, "c", A, b"", now=0.0)
    assert caught.value.kind is Kind.BUFFER_FULL
    q.push(S, "a", B, b"", now=0.0)
    assert take(q, topic="b") == b""
    q.push(S, "c", A, b"", now=0.0)


@pytest.mark.req("T-049")
def test_idle_sessions_expire_and_give_memory_back() -> None:
    budget = Budget(process_bytes=1 << 20, session_bytes=1 << 20)
    q = Queues(budget, session_topics=8, peek_keeps=False)
    q.push(S, "t", A, b"1", now=10.0)
    q.push(S2, "t", A, b"2", now=20.0)
    kept = SessionId("kept")
    q.push(kept, "t", A, b"3", now=0.0)
    assert q.expire(before=15.0, now=30.0, kept=lambda session: session == kept) == [S]
    assert (budget.used_by(S), budget.used) == (0, 2 * (1 + MESSAGE_OVERHEAD))
    assert (take(q), take(q, S2), take(q, kept)) == (None, b"2", b"3")
    assert budget.used == 0
    q.push(S, "t", A, b"1", now=10.0)
    assert q.pop(S, "other", source=None, now=20.0) is None
    assert q.expire(before=15.0, now=30.0, kept=lambda _session: False) == []


def test_expiry_looks_at_what_expires_and_no_further() -> None:
    """20,000 sessions, ten of them old; those that are kept are asked about once in an idle time."""
    q = queues(process=1 << 30)
    for n in range(20_000):
        q.push(SessionId(f"s{n}"), "t", A, b"", now=float(n))
    asked: list[SessionId] = []

    def kept(session: SessionId) -> bool:
        asked.append(session)
        return session in {"s3", "s5"}

    assert len(q.expire(before=10.0, now=30_000.0, kept=kept)) == 8
    assert (len(asked), len(q)) == (10, 19_992)
    assert q.expire(before=10.0, now=30_001.0, kept=kept) == []
    assert len(asked) == 10


def test_a_message_in_hand_counts_until_its_reader_has_it() -> None:
    budget = Budget(process_bytes=1 << 20, session_bytes=1 << 20, partner_bytes=2 * (1 + MESSAGE_OVERHEAD))
    q = Queues(budget, session_topics=8, peek_keeps=False)
    for payload in (b"1", b"2"):
        q.push(S, "t", A, payload, now=0.0)
    with pytest.raises(Unavailable):
        q.push(S2, "t", A, b"3", now=0.0)
    q.push(S2, "t", B, b"3", now=0.0)
    first, second = (q.pop(S, "t", source=None, now=0.0) for _ in range(2))
    assert first is not None
    assert second is not None
    with pytest.raises(Unavailable):
        q.push(S2, "t", A, b"3", now=0.0)
    assert q.put_back(second, now=0.0)
    assert q.put_back(first, now=0.0)
    assert [take(q), take(q)] == [b"1", b"2"]
    third = q.pop(S2, "t", source=None, now=0.0)
    assert third is not None
    assert q.release(S2) == 0
    assert (q.put_back(third, now=0.0), len(q), budget.used) == (False, 0, 0)


@given(st.lists(st.tuples(st.sampled_from("+-?rR"), st.sampled_from("abc"), st.sampled_from([A, B, None]))))
def test_against_a_plain_list(steps: list[tuple[str, str, NodeId | None]]) -> None:
    """The same answers as one list of (topic, source, payload) in push order, and the budget always adds up."""
    budget = Budget(process_bytes=1 << 20, session_bytes=1 << 20)
    q = Queues(budget, session_topics=8, peek_keeps=False)
    model: list[tuple[str, NodeId, bytes]] = []
    for number, (step, topic, source) in enumerate(steps):
        if step == "+":
            payload = str(number).encode()
            q.push(S, topic, source or A, payload, now=0.0)
            model.append((topic, source or A, payload))
        elif step in "-?":
            expected = next((m for m in model if m[0] == topic and source in {None, m[1]}), None)
            assert take(q, topic=topic, source=source) == (expected[2] if expected else None)
            if expected:
                model.remove(expected)
        else:
            name = topic if step == "r" else ""
            q.release(S, name)
            model = [m for m in model if name and m[0] != name]
        assert budget.used == sum(len(m[2]) + MESSAGE_OVERHEAD for m in model)
        assert q.depth(S) == len(model)


def test_sent_bytes_survive_the_session_for_a_while() -> None:
    sent = SentBytes(closed_sessions=2)
    sent.add(S, B, 5)
    assert sent.of(S) == {}
    sent.open(S)
    sent.add(S, B, 5)
    sent.add(S, B, 6)
    sent.close(S)
    sent.add(S, B, 1)
    assert sent.of(S) == {B: 12}
    assert sent.is_closed(S)
    sent.open(S)
    assert not sent.is_closed(S)
    sent.add(S, A, 1)
    assert sent.of(S) == {B: 12, A: 1}
    sent.close(S)
    for n in range(2):
        sent.open(SessionId(f"x{n}"))
        sent.close(SessionId(f"x{n}"))
    assert sent.of(S) == {}
