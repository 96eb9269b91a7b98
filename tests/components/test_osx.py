"""A component of ours beside FATE's OSx: the dialect "osx-http", against a stand-in that does as the real one."""

import base64
import json
import random
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from gateway.sdk import osx
from gateway.sdk.channel import Channel, Line
from gateway.sdk.codec import CodecError
from gateway.sdk.environment import OSX_HTTP, Address, read_environment
from gateway.sdk.result import Code, ComponentError
from tests.components.osx import Osx, two_modules
from tests.components.platform import OK, Platform, soon
from tests.components.test_environment import VARIABLES
from tests.components.test_pipeline import GUEST, HOST, NODES, Job, succeed

A, B = Address("LX-A", "JG-A"), Address("LX-B", "JG-B")


@pytest.fixture
def modules() -> Iterator[tuple[Osx, Osx]]:
    with two_modules("LX-A", "LX-B") as made:
        yield made


def channel_to(module: Platform, dialect: str = OSX_HTTP) -> Channel:
    node = module.node_id if isinstance(module, Osx) else "LX-A"
    line = Line(module.address, "s-1", "tr-7", "tok", dialect=dialect, source_node=node)
    return Channel(line, sleep=lambda _seconds: None)


@pytest.mark.req("T-044", "T-030")
@pytest.mark.parametrize("payload", [b"\x00" * 8, b"\x41" + bytes(7) + b"QUJD", bytes(range(256)) * 5000, b"{}", b"a"])
def test_a_message_that_lay_there_and_one_that_was_waited_for(modules: tuple[Osx, Osx], payload: bytes) -> None:
    here, there = channel_to(modules[0]), channel_to(modules[1])
    here.push("t", payload[:3], payload[3:], to=B, deadline=soon())
    assert there.pop("t", source=A, wait_ms=1000, deadline=soon()) == payload
    got: list[memoryview | None] = []
    waiting = threading.Thread(
        target=lambda: got.append(there.pop("t", source=A, wait_ms=5000, deadline=soon())), daemon=True
    )
    waiting.start()
    while not any(request.operation == "pop" and b"5000" in request.body for request in modules[1].requests):
        time.sleep(0.005)
    here.push("t", payload, to=B, deadline=soon())
    waiting.join(10)
    assert got == [payload]
    there.push("back", payload, to=A, deadline=soon())
    assert here.peek("back", source=B) == payload
    assert here.peek("back", source=B) is None
    assert modules[1].as_queued == 1
    assert modules[1].as_it_came == 1
    assert modules[0].lost == modules[1].lost == 0
    here.close()


@pytest.mark.req("T-044", "T-019")
def test_arrays_and_nothing(modules: tuple[Osx, Osx]) -> None:
    here, there = channel_to(modules[0]), channel_to(modules[1])
    sent = np.arange(1000, dtype="<f8").reshape(20, 50)
    here.send("t", sent, to=B, deadline=soon())
    assert np.array_equal(there.recv("t", source=A, wait_ms=1000, deadline=soon()), sent)
    assert there.pop("t", source=A, wait_ms=1, deadline=soon()) is None  # E0000000601
    here.push("left", b"x", to=A, deadline=soon())
    here.release("left", target=A)
    assert here.pop("left", source=A, wait_ms=1, deadline=soon()) is None
    here.close()
    there.close()


@pytest.mark.req("T-044")
def test_without_the_dialect_nothing_passes(modules: tuple[Osx, Osx]) -> None:
    with pytest.raises(ComponentError) as failed:
        channel_to(modules[0], dialect="").push("t", b"x", to=B, deadline=soon())
    assert failed.value.code == Code.TRANSPORT


@pytest.mark.req("T-045", "T-050")
def test_what_its_answers_say(platform: Platform) -> None:
    read = osx.read("push", b'{"code":"E0000000000","msg":"success"}')
    assert (read.code, read.message, bytes(read.payload)) == (OK, "success", b"")
    read = osx.read("push", b'{"code":"E0000000400","message":"sessionId is null"}')
    assert (read.code, read.message) == ("E0000000400", "sessionId is null")
    channel = channel_to(platform)
    for body in (
        b'{"payload":"","code":"","message":"PARTY_LX-B:null"}',
        b'{"code":0,"msg":"success"}',
        b'{"msg":"success"}',
        b'{"code":"E0000000500","msg":"java.lang.NullPointerException"}',
        b"[]",
        b"READER",
        b'{"code":"E0000000000","msg":"","payload":"not base64!"}',
        b"[" * 100_000,
    ):
        platform.answers.append(lambda _request, body=body: (200, body, "application/json"))
        with pytest.raises(ComponentError) as failed:
            channel.push("t", b"x", to=B, deadline=time.monotonic())
        assert failed.value.code == Code.TRANSPORT
    platform.answers.append(lambda _request: (502, b"Bad Gateway", "text/html"))
    with pytest.raises(ComponentError):
        channel.push("t", b"x", to=B, deadline=time.monotonic())
    channel.close()


def test_what_is_asked() -> None:
    assert json.loads(osx.request("push", "t", [memoryview(b"h"), memoryview(b"i")], 0)) == {
        "topic": "t",
        "payload": "aGk=",
    }
    assert json.loads(osx.request("pop", "t", [], 250)) == {"topic": "t", "timeout": 250}
    assert json.loads(osx.request("peek", "t", [], 0)) == {"topic": "t"}


@pytest.mark.req("T-044")
def test_only_what_is_base64_to_the_letter_is_decoded_again() -> None:
    def popped(payload: bytes, operation: str = "pop") -> bytes:
        text = base64.b64encode(payload).decode()
        return bytes(osx.read(operation, json.dumps({"code": OK, "payload": text}).encode()).payload)

    assert popped(base64.b64encode(b"\x00message")) == b"\x00message"
    assert popped(base64.b64encode(b"message"), "peek") == base64.b64encode(b"message")
    for single in (b"YQ", b"YR==", b"YQ==\n", b"a b=", b"\x00\x00\x00\x00", b"{}"):
        assert popped(single) == single
    with pytest.raises(CodecError):
        osx.read("pop", b'{"code":"E0000000000","payload":"*"}')


def test_the_dialect_is_declared_beside_the_address() -> None:
    assert read_environment(VARIABLES).dialect == ""
    assert read_environment({**VARIABLES, "interconn.dialect": OSX_HTTP}).dialect == OSX_HTTP
    with pytest.raises(ComponentError, match=r"interconn\.dialect"):
        read_environment({**VARIABLES, "interconn.dialect": "osx-grpc"})


@dataclass
class BesideOsx(Job):
    """Each party has a module of its own."""

    modules: Mapping[str, Osx] = field(default_factory=dict)

    def variables(self, component: str, party: str, *more: Mapping[str, object]) -> dict[str, str]:
        found = super().variables(component, party, *more)  # type: ignore[arg-type]
        return {**found, "system.transport": self.modules[party].address, "interconn.dialect": OSX_HTTP}


@pytest.mark.req("T-044", "T-030")
def test_psi_of_two_components_each_beside_its_osx(modules: tuple[Osx, Osx], tmp_path: Path) -> None:
    parts = {GUEST: modules[0], HOST: modules[1]}
    assert {party: module.node_id for party, module in parts.items()} == NODES
    job = BesideOsx(tmp_path, modules[0], modules=parts)
    source, people = random.Random(3), [f"person-{n}" for n in range(400)]
    ours, theirs = source.sample(people, 250), source.sample(people, 250)
    job.give(GUEST, "data", ["id", "x"], [[person, "1"] for person in ours])
    job.give(HOST, "data", ["id", "y"], [[person, "2"] for person in theirs])
    succeed(job.run("psi", {"train_data": "data"}))
    common = sorted(set(ours) & set(theirs))
    for party in (GUEST, HOST):
        assert [row[0] for row in job.read(party, "psi.data0").rows] == common
    assert modules[0].lost == modules[1].lost == 0
    assert all(module.as_queued + module.as_it_came > 0 for module in modules)
