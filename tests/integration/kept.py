"""Two data processes of their own, killed with SIGKILL while messages pass: 0 lost, 0 doubled, 0 swapped.

Writers name their messages, readers acknowledge theirs (docs/transport.md); both repeat a call until it is answered.
Half of the topics pass through the component's own channel, which does so by itself, over HTTP or the Unix socket.
`python -m tests.integration.kept --messages 10000 --kills 60` is the long form.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field, replace

import aiohttp

from gateway.data_plane.io.link import DataPlaneLink
from gateway.data_plane.io.stream_local import SOCKET
from gateway.model import NodeId
from gateway.sdk.channel import Channel, Line
from gateway.sdk.environment import Address
from tests.edges import rig
from tests.integration.processes import Gateway, gateway

A, B = NodeId("LX-A"), NodeId("LX-B")
OK = "E0000000000"


@dataclass(slots=True)
class Trial:
    """What passes on so many topics. read: what the reader of each got, in order."""

    a: Gateway
    b: Gateway
    topics: int
    messages: int
    client: aiohttp.ClientSession
    read: dict[str, list[bytes]] = field(default_factory=dict)
    repeated: int = 0

    async def call(self, at: Gateway, name: str, headers: dict[str, str], body: dict[str, object]) -> dict[str, object]:
        """Repeat a call until it is answered with success."""
        pause = 0.02
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, json.JSONDecodeError):
                url = f"http://127.0.0.1:{at.platform}{rig.CHAN}{name}"
                sent = {**rig.ns_headers(B), **headers, "content-type": "application/json"}
                async with self.client.post(url, data=json.dumps(body), headers=sent) as response:
                    value: dict[str, object] = json.loads(await response.read())
                    if value.get("code") == OK:
                        return value
            self.repeated += 1
            await asyncio.sleep(pause)
            pause = min(0.5, 2 * pause)

    async def write(self, topic: str) -> None:
        epoch = os.urandom(8).hex()
        for n in range(self.messages // self.topics):
            payload = base64.b64encode(b"%s:%d" % (topic.encode(), n)).decode()
            name = {"x-interconn-message": f"{epoch}-{n}-{n}"}
            await self.call(self.a, "push", name, {"topic": topic, "payload": payload})

    async def reads(self, topic: str) -> None:
        got, ack = self.read.setdefault(topic, []), "0"
        while len(got) < self.messages // self.topics:
            value = await self.call(self.b, "pop", {"x-interconn-ack": ack}, {"topic": topic, "timeout": 500})
            if "payload" in value:
                got.append(base64.b64decode(str(value["payload"])))
                metadata = value["metadata"]
                assert isinstance(metadata, dict)
                ack = str(metadata["x-interconn-message"])

    def channel(self, at: Gateway, *, local: bool) -> Channel:
        socket = str(at.folder / SOCKET) if local else ""
        return Channel(Line(f"127.0.0.1:{at.platform}", rig.SID, "trace-1", rig.TOKEN, local=socket))

    def write_by_channel(self, topic: str, *, local: bool) -> None:
        channel = self.channel(self.a, local=local)
        for n in range(self.messages // self.topics):
            payload = b"%s:%d" % (topic.encode(), n)
            channel.push(topic, payload, to=Address(B, "i"), deadline=time.monotonic() + 600, repeatable=True)
        channel.close()

    def read_by_channel(self, topic: str, *, local: bool) -> None:
        channel, got = self.channel(self.b, local=local), self.read.setdefault(topic, [])
        while len(got) < self.messages // self.topics:
            source = Address(A, "i")
            message = channel.pop(topic, source=source, wait_ms=500, deadline=time.monotonic() + 600)
            got += [] if message is None else [bytes(message)]
        channel.close()

    def passing(self, topic: str, number: int) -> Sequence[Awaitable[None]]:
        """The writer and the reader of a topic: four kinds in turn."""
        if number % 2 == 0:
            return self.write(topic), self.reads(topic)
        local = number % 4 == 1
        both = (self.write_by_channel, self.read_by_channel)
        return [asyncio.to_thread(one, topic, local=local) for one in both]

    async def havoc(self, chance: random.Random, kills: int) -> None:
        """Kill one or the other, or both, while messages pass."""
        share = self.topics * (self.messages // self.topics) / (kills + 1)
        for n in range(kills):
            while sum(map(len, self.read.values())) < (n + 1) * share:  # noqa: ASYNC110  # readers tell nobody
                await asyncio.sleep(0.005)
            await asyncio.sleep(chance.random() * 0.02)
            chosen = chance.choice([[self.a], [self.b], [self.a], [self.b], [self.a, self.b]])
            await asyncio.gather(*(one.kill() for one in chosen))
            await asyncio.gather(*(one.start() for one in chosen))


async def run(*, messages: int, kills: int, topics: int, seed: int) -> Trial:
    """Raises AssertionError with what was lost, doubled or swapped."""
    async with (
        gateway(A, spool_dir="spool") as a,
        gateway(B, spool_dir="spool") as b,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as client,
    ):
        rule = replace(rig.rule(A, B), durability="spool")
        for one, peer in ((a, b), (b, a)):
            one.control.routes, one.control.rules = [peer.route()], [rule]
            told = DataPlaneLink(one.folder)
            await told.replace_all([peer.route()], [rule])
            await told.close()
        trial, names = Trial(a, b, topics, messages, client), [f"t{n}" for n in range(topics)]
        havoc = asyncio.create_task(trial.havoc(random.Random(seed), kills))
        await asyncio.gather(*(each for n, topic in enumerate(names) for each in trial.passing(topic, n)))
        await havoc
        for number, topic in enumerate(names):
            expected = [b"%s:%d" % (topic.encode(), n) for n in range(messages // topics)]
            assert not (wrong := _differences(trial.read[topic], expected)), f"{topic}: {wrong}"
            # The component's channel reads what comes from one node.
            headers = {"x-ptp-target-node-id": A if number % 2 else B, "x-interconn-ack": "0"}
            left = await trial.call(b, "pop", headers, {"topic": topic, "timeout": 0})
            # The last message of a topic was not acknowledged: a reader that begins anew gets it again, and only it.
            assert base64.b64decode(str(left["payload"])) == expected[-1]
        return trial


def _differences(got: list[bytes], expected: list[bytes]) -> str:
    if got == expected:
        return ""
    doubled = sorted(each for each in set(got) if got.count(each) > 1)
    order = [expected.index(each) for each in got if each in expected]
    swapped = [got[n] for n in range(1, len(order)) if order[n] < order[n - 1]]
    return f"lost {sorted(set(expected) - set(got))}, doubled {doubled}, swapped {swapped}"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--topics", type=int, default=4)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    told = parser.parse_args()
    trial = asyncio.run(run(messages=told.messages, kills=told.kills, topics=told.topics, seed=told.seed))
    starts = trial.a.starts + trial.b.starts - 2
    print(
        f"seed {told.seed}: {told.messages} messages, {starts} kills, {trial.repeated} calls repeated: none lost,"
        " none doubled, none swapped"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
