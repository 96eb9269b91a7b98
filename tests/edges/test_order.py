"""Which of a topic's pushes may be sent when: in the order in which they were begun, whoever waits for what."""

import asyncio
import random

from gateway.sdk.order import Order


async def _pushed(seed: int) -> list[int]:
    """Numbers as they were sent; some wait before their turn, as for a line, some are alone, some are given up."""
    chance, order, sent = random.Random(seed), Order(), list[int]()
    until = asyncio.get_running_loop().time() + 10

    async def push(*, alone: bool, before: int, under_way: int) -> None:
        number = order.begin()
        try:
            for _ in range(before):
                await asyncio.sleep(0)
            await order.turn(number, alone=alone, until=until)
            sent.append(number)
            assert not alone or next(iter(order._open)) == number
            for _ in range(under_way):
                await asyncio.sleep(0)
        finally:
            order.end(number)

    pushes = list[asyncio.Task[None]]()
    for _ in range(30):
        before = chance.choice((0, 0, 0, 0, 1, 3))
        pushes.append(
            asyncio.create_task(push(alone=chance.random() < 0.3, before=before, under_way=chance.randrange(4)))
        )
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        if chance.random() < 0.1:
            chance.choice(pushes).cancel()
    async with asyncio.timeout(10):
        ended = await asyncio.gather(*pushes, return_exceptions=True)
    assert all(each is None or isinstance(each, asyncio.CancelledError) for each in ended)
    assert order.idle
    assert (order._waiting, order._alone, order._unsent) == ({}, set(), {})
    return sent


async def test_nobody_overtakes() -> None:
    for seed in range(200):
        sent = await _pushed(seed)
        assert sent == sorted(sent), seed


async def test_a_push_that_is_alone_again_goes_before_those_that_were_not_sent() -> None:
    order, sent, loop = Order(), list[str](), asyncio.get_running_loop()
    first, again, late = order.begin(), order.begin(), order.begin()
    for each in (first, again):
        await order.turn(each, alone=False, until=loop.time())

    async def turn(name: str, number: int, *, alone: bool) -> None:
        await order.turn(number, alone=alone, until=loop.time() + 10)
        sent.append(name)

    waiting = [
        asyncio.create_task(turn("again", again, alone=True)),
        asyncio.create_task(turn("late", late, alone=False)),
    ]
    await asyncio.sleep(0)
    assert sent == []
    order.end(first)
    await waiting[0]
    assert sent == ["again"]
    order.end(again)
    await waiting[1]
    assert sent == ["again", "late"]
