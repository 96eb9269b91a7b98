"""The short form of `tests.integration.kept`, part of every run; `make soak` has the long one."""

from tests.integration import kept


async def test_kills_lose_double_and_swap_nothing() -> None:
    trial = await kept.run(messages=300, kills=3, topics=3, seed=7)
    assert trial.a.starts + trial.b.starts >= 5
