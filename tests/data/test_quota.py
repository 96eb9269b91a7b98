"""How fast one partner may send: the accounts alone, without a socket."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.data_plane.core.quota import BURST_S, Quotas
from gateway.errors import Kind, Unavailable
from gateway.model import NodeId

A, B = NodeId("LX-A"), NodeId("LX-B")


def admitted(quotas: Quotas, node: NodeId, now: float) -> bool:
    try:
        quotas.admit(node, now=now)
    except Unavailable as refused:
        return refused.kind is not Kind.OVERLOADED
    return True


def test_a_burst_and_then_the_rate() -> None:
    quotas = Quotas(messages_per_s=10)
    assert sum(admitted(quotas, A, 100.0) for _ in range(50)) == 10 * BURST_S
    assert sum(admitted(quotas, A, 101.0) for _ in range(50)) == 10
    assert sum(admitted(quotas, A, 1000.0) for _ in range(50)) == 10 * BURST_S


def test_partners_have_accounts_of_their_own() -> None:
    quotas = Quotas(messages_per_s=1)
    while admitted(quotas, A, 5.0):
        pass
    assert admitted(quotas, B, 5.0)


def test_who_owes_bytes_waits() -> None:
    quotas = Quotas(bytes_per_s=1000)
    assert admitted(quotas, A, 0.0)
    quotas.spend(A, 5000)
    assert not admitted(quotas, A, 2.9)
    assert admitted(quotas, A, 3.1)
    quotas.spend(B, 1 << 30)  # was never let in: nothing to pay from
    assert admitted(quotas, B, 3.1)


def test_without_quotas_everything_passes_and_nothing_is_remembered() -> None:
    quotas = Quotas()
    assert all(admitted(quotas, A, 0.0) for _ in range(1000))
    quotas.spend(A, 1 << 40)
    assert admitted(quotas, A, 0.0)


@given(
    rate=st.integers(1, 1000),
    steps=st.lists(st.tuples(st.floats(0, 2), st.integers(0, 5000)), max_size=60),
    paid=st.integers(1, 1000),
)
def test_never_more_than_rate_and_burst(rate: int, steps: list[tuple[float, int]], paid: int) -> None:
    quotas, now, taken, last = Quotas(messages_per_s=rate, bytes_per_s=paid), 0.0, 0, 0
    spent = 0
    for pause, size in steps:
        now += pause
        if admitted(quotas, A, now):
            assert spent <= paid * (now + BURST_S) + 1e-6
            taken, last = taken + 1, size
            spent += last
            quotas.spend(A, size)
    assert taken <= rate * (now + BURST_S) + 1e-6
