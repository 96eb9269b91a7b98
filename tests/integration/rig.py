"""Two real gateways (processes, sockets, TLS, SQLite) with a recording tap in front of each, for the integration tests.

Everything goes through the admin APIs as an institution's admin would do it, or through the edge as a partner would:
`Partner` signs with a node's own keys and may do so wrongly.
"""

import asyncio
import base64
import csv
import hashlib
import http.client
import json
import os
import re
import signal
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gateway import lab
from gateway.admin_client import AdminClient
from gateway.errors import Refused
from gateway.lab.node import write_private
from specs.routes import ROUTES
from tests.integration.pids import descendants
from tests.integration.tap import Exchange, Tap
from tests.waiting import PROCESSES_S, wait_for

COMPONENTS = ("psi", "split", "feature_encode", "hetero_lr", "hetero_lr_predict", "evaluation")


class _Loop:
    """An event loop in a thread, for the taps."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@dataclass
class Side:
    """One institution."""

    node: lab.LabNode
    pki: Path
    client: AdminClient

    @property
    def node_id(self) -> str:
        return self.node.node_id

    @property
    def folder(self) -> Path:
        return self.node.ca_file.parent.parent

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get("jobs", job_id)
        return found

    def events(self, **equals: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.get("events", limit=10_000, **equals)
        return found

    def logs(self) -> str:
        """Everything this gateway and its tasks wrote to files."""
        files = [*self.folder.glob("log/*"), *self.folder.glob("work/jobs/*/*/logs/*/*")]
        return "\n".join(file.read_text(errors="replace") for file in files)


@dataclass
class Rig:
    """Both sides, their taps and what a test needs to make jobs."""

    directory: Path
    bank: Side
    payment: Side
    taps: Mapping[str, Tap]
    contract_id: str
    _loop: _Loop = field(repr=False, default_factory=_Loop)

    def exchanges(self) -> list[Exchange]:
        return [exchange for tap in self.taps.values() for exchange in tap.exchanges()]

    def raw(self) -> bytes:
        return b"\n".join(tap.raw() for tap in self.taps.values())

    def close(self) -> None:
        lab.down(self.directory)
        for tap in self.taps.values():
            self._loop.run(tap.stop())
        self._loop.close()

    # -- what admins do

    def add_dataset(self, side: Side, rows: Sequence[Mapping[str, object]], **more: Any) -> str:
        """A table of a side's own catalogue; the id column is `id`."""
        file = self.directory / f"{uuid.uuid4().hex}.csv"
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        made = side.client.post("datasets", name=file.stem, path=str(file), id_column="id", **more)
        return str(made["dataset_id"])

    def grant(self, dataset_id: str, *, components: Sequence[str] = COMPONENTS, **limits: Any) -> Mapping[str, Any]:
        """The bank may use a dataset of payment's; returns the bank's approved audit."""
        asked = self.bank.client.post(
            "datasets",
            "apply",
            node_id=self.payment.node_id,
            dataset_id=dataset_id,
            auth_scope={"COMPONENT": list(components)},
            **limits,
        )
        self.decide(self.payment, asked["audit_id"], "approve")
        return self.settled(self.bank, asked["audit_id"])

    def project(self, bank_dataset: str, payment_dataset: str) -> str:
        made = self.bank.client.post(
            "projects",
            name="joint",
            type="HETERO_FL",
            datasets={self.bank.node_id: [bank_dataset], self.payment.node_id: [payment_dataset]},
        )
        audit = wait_for(lambda: self._audit(self.payment, made["project_id"]), "project applied")
        self.decide(self.payment, audit["audit_id"], "approve")
        self.settled(self.bank, audit["audit_id"])
        return str(made["project_id"])

    def _audit(self, side: Side, wanted: str) -> Mapping[str, Any] | None:
        for audit in side.client.get("audits"):
            if wanted in (audit["audit_id"], audit["subject"]):
                return audit
        return None

    def decide(self, side: Side, audit_id: str, verb: str) -> None:
        audit = wait_for(lambda: self._audit(side, audit_id), f"{audit_id} arrives")
        side.client.post("audits", audit["applicant"], audit["audit_id"], verb)

    def settled(self, side: Side, audit_id: str) -> Mapping[str, Any]:
        def decided() -> Mapping[str, Any] | None:
            audit = self._audit(side, audit_id)
            return audit if audit is not None and audit["status"] != "APPLIED" else None

        found: Mapping[str, Any] = wait_for(decided, f"{audit_id} is decided")
        return found

    def job_file(
        self, project: str, data: tuple[str, str], steps: Sequence[Mapping[str, Any]], **more: Any
    ) -> dict[str, Any]:
        return {
            "name": "joint",
            "project": project,
            "parties": {"guest": self.bank.node_id, "host": self.payment.node_id},
            "data": {"guest": data[0], "host": data[1]},
            "step": [dict(step) for step in steps],
            **more,
        }

    def submit(self, file: Mapping[str, Any]) -> str:
        """Submitted by the bank and approved by payment."""
        job_id = str(self.bank.client.post_json("jobs", body=dict(file))["job_id"])
        wait_for(lambda: self._audit(self.payment, job_id), "the job's audit arrives")
        self.payment.client.post("jobs", job_id, "approve")
        return job_id

    def ended(self, job_id: str, *, seconds: float = PROCESSES_S) -> tuple[dict[str, Any], dict[str, Any]]:
        """Both sides' views once the job has ended at both."""

        def final(side: Side) -> dict[str, Any] | None:
            view = side.job(job_id)
            return view if view["job"]["status"] in ("FINISHED", "REJECTED") else None

        views = [wait_for(lambda s=s: final(s), f"{job_id} ends at {s.node.name}", seconds=seconds) for s in self.sides]
        return views[0], views[1]

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.bank, self.payment

    def download(self, side: Side, job_id: str, task: str, key: str) -> bytes:
        for output in side.client.get("jobs", job_id, "outputs"):
            if (output["task_name"], output["key"]) == (task, key):
                file = self.directory / uuid.uuid4().hex
                side.client.download("jobs", job_id, "outputs", output["namespace"], output["name"], to=file)
                return file.read_bytes()
        raise AssertionError(f"{side.node.name} has no {key} of {task}")

    def kill(self, side: Side) -> None:
        """As if the machine lost power: SIGKILL to every process of a gateway, components included."""
        assert side.node.pid is not None
        for process in descendants(side.node.pid):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def move_to(node: lab.LabNode, url: str) -> None:
    """Let a stopped, empty gateway keep its state in the database at `url` from now on."""
    folder = node.ca_file.parent.parent
    write_private(folder / "store.url", url + "\n")
    config = folder / "node.toml"
    config.write_text(f'{config.read_text()}\n[store]\nurl = "file:store.url"\n')
    (folder / "state.db").unlink()


def start(
    directory: Path,
    *,
    jobs: Mapping[str, Any] | None = None,
    taps: bool = True,
    tap: Callable[[int, int, Path, Path], Tap] = Tap,
    more: str = "",
    command: Sequence[str] = lab.SERVE,
    payment_store: str = "",
) -> Rig:
    """A lab whose nodes advertise their tap's address, partnership signed.

    more: further text of each node.toml. payment_store: payment's database, else SQLite.
    """
    nodes = lab.up(directory, parties=2, jobs=jobs or {"poll_s": 0.1, "misses": 4, "silence_s": 4.0})
    loop = _Loop()
    made: dict[str, Tap] = {}
    if taps:
        lab.down(directory)
        pki = {node.name: node.ca_file.parent for node in nodes.nodes}
        for node in nodes.nodes:
            other = next(name for name in pki if name != node.name)
            upstream = urlsplit(node.edge_url).port
            assert upstream is not None
            one = tap(free_port(), upstream, pki[node.name], pki[other])
            loop.run(one.start())
            made[node.name] = one
            config = pki[node.name].parent / "node.toml"
            text = config.read_text()
            assert node.edge_url in text
            # A tap reads HTTP, so every message is a call of its own.
            text = text.replace("[edge]\n", "[edge]\nstreams = false\n")
            config.write_text(text.replace(node.edge_url, f"https://127.0.0.1:{one.port}") + more)
        if payment_store:
            move_to(nodes.node("payment"), payment_store)
        nodes = lab.up(directory, command=command)
    bank, payment = nodes.node("bank"), nodes.node("payment")
    sides = [Side(node, node.ca_file.parent, node.client(timeout_s=20.0)) for node in (bank, payment)]
    # The lab knows where its nodes listen; partners must use what they advertise.
    contract = _sign_through_taps(*sides, made["payment"].port) if taps else lab.sign(bank, payment)
    return Rig(directory, sides[0], sides[1], made, contract, loop)


def _sign_through_taps(bank: Side, payment: Side, port: int) -> str:
    address = f"https://127.0.0.1:{port}"
    seen = bank.client.post("partners", "probe", address=address, node_id=payment.node_id)
    assert seen["fingerprint"] == payment.node.fingerprint()
    contract = bank.client.post(
        "partners", "apply", address=address, node_id=payment.node_id, fingerprint=seen["fingerprint"]
    )
    contract_id = str(contract["contract_id"])
    payment.client.post("partners", contract_id, "approve", fingerprint=bank.node.fingerprint())

    def approved() -> bool:
        return any(
            each["contract_id"] == contract_id and each["status"] == "APPROVED" for each in bank.client.get("partners")
        )

    wait_for(approved, "the contract is confirmed")
    return contract_id


@dataclass
class Partner:
    """A partner at the edge of `to`: signs as `source` with the keys in `pki`, and can get anything wrong."""

    to: Side
    source: str
    pki: Path

    def call(
        self,
        route: str,
        payload: Mapping[str, Any],
        *,
        headers: Mapping[str, str | None] | None = None,
        sign: bool | Callable[[bytes], str] = True,
        certificate: bool = True,
        body: bytes | None = None,
        port: int | None = None,
        method: str = "",
        query: bool = False,
    ) -> tuple[int, dict[str, Any]]:
        """HTTP status and parsed reply. headers: override (None removes). The signature covers what is sent."""
        prepared = self.prepare(route, payload, headers=headers, sign=sign, body=body, method=method, query=query)
        status, reply = self.send(*prepared, certificate=certificate, port=port)
        return status, json.loads(reply)

    def prepare(
        self,
        route: str,
        payload: Mapping[str, Any],
        *,
        headers: Mapping[str, str | None] | None = None,
        sign: bool | Callable[[bytes], str] = True,
        body: bytes | None = None,
        method: str = "",
        query: bool = False,
    ) -> tuple[str, str, dict[str, str], bytes]:
        """method: another than the route's. query: the payload stands in the query whatever the method."""
        path, method = ROUTES[route].path, method or ROUTES[route].method
        in_query = query or method == "GET"
        asked = urlencode(sorted(payload.items())) if in_query else ""
        content = body if body is not None else b"" if in_query else json.dumps(payload).encode()
        sent: dict[str, str] = {
            "x-source-node-id": self.source,
            "x-target-node-id": self.to.node_id,
            "x-nonce": str(uuid.uuid4()),
            "x-trace-id": f"tr-{uuid.uuid4().hex}",
            "x-timestamp": str(time.time_ns() // 1_000_000),
            "content-type": "application/json",
        }
        if ROUTES[route].method == "POST":
            sent["x-csrf-protection"] = "1"
        for name, value in (headers or {}).items():
            if value is None:
                sent.pop(name)
            else:
                sent[name] = value
        if sign:
            text = "\n".join(
                [
                    method,
                    path,
                    asked,
                    sent.get("x-source-node-id", ""),
                    sent.get("x-target-node-id", ""),
                    sent.get("x-nonce", ""),
                    sent.get("x-timestamp", ""),
                    hashlib.sha256(content).hexdigest(),
                ]
            ).encode()
            sent["x-auth-sign"] = (sign if callable(sign) else self._signature)(text)
        return method, path + (f"?{asked}" if asked else ""), sent, content

    def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        certificate: bool = True,
        port: int | None = None,
    ) -> tuple[int, bytes]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.to.pki / "ca.pem")
        if certificate:
            context.load_cert_chain(self.pki / "tls.pem", self.pki / "tls.key")
        edge = port or self.edge_port()
        connection = http.client.HTTPSConnection("127.0.0.1", edge, context=context, timeout=20)
        try:
            connection.request(method, target, body=body or None, headers=dict(headers))
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def edge_port(self) -> int:
        """Where the gateway itself listens, without its tap."""
        found = re.search(r"(?ms)^\[edge\].*?^port *= *(\d+)", (self.to.folder / "node.toml").read_text())
        assert found is not None
        return int(found[1])

    def _signature(self, text: bytes) -> str:
        key = load_pem_private_key((self.pki / "signing.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return base64.b64encode(key.sign(text, ec.ECDSA(hashes.SHA256()))).decode()


def refused(client: AdminClient, *path: str, **body: Any) -> Refused:
    """The refusal that a POST to the admin API gets; fails where it succeeds."""
    try:
        client.post(*path, **body)
    except Refused as error:
        return error
    raise AssertionError("not refused")
