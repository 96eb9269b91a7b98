"""The composition root: reads the configuration once and puts the parts of each process together.

`serve` is the parent; it starts `control` and `data` as processes of their own (docs/adr/0001). Nothing below this
module knows the configuration, and nothing here decides anything but which part gets which.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from gateway.auth.keys import KeyRing, load_signer, read_secret
from gateway.auth.pki import renew_signing
from gateway.auth.schemes import Signer
from gateway.config import Config, ConfigError, load
from gateway.data_plane.io.link import DataPlaneLink, snapshot_to_json
from gateway.data_plane.io.process import DataSettings, run_data_process
from gateway.errors import GatewayError, Unavailable
from gateway.mgmt_plane.rest.admin import Admin, AdminContext
from gateway.mgmt_plane.rest.admin_invites import InviteAdmin
from gateway.mgmt_plane.rest.admin_jobs import JobAdmin
from gateway.mgmt_plane.rest.admin_keys import KeyAdmin, KeyContext
from gateway.mgmt_plane.rest.admin_peer import PeerAdmin
from gateway.mgmt_plane.rest.admin_profiles import ProfileAdmin
from gateway.mgmt_plane.rest.admin_receipts import ReceiptAdmin
from gateway.mgmt_plane.rest.admin_server import admin_app, read_token
from gateway.mgmt_plane.rest.admin_trail import TrailAdmin
from gateway.mgmt_plane.rest.admin_users import UserAdmin, UserGuard
from gateway.mgmt_plane.rest.client import SignedClient
from gateway.mgmt_plane.rest.documentation import (
    ADMIN_OPENAPI_PATH,
    ADMIN_PAGE_PATH,
    add_documentation,
    admin_document,
    document,
)
from gateway.mgmt_plane.rest.edge import Edge
from gateway.mgmt_plane.rest.handlers import Services, management_handlers
from gateway.mgmt_plane.rest.health import Health
from gateway.mgmt_plane.rest.platform import Platform
from gateway.mgmt_plane.rest.platform_door import PlatformDoor
from gateway.mgmt_plane.rest.schedule import schedule_handlers
from gateway.mgmt_plane.service.audits import Audits
from gateway.mgmt_plane.service.datasets import Datasets
from gateway.mgmt_plane.service.decisions import Decisions
from gateway.mgmt_plane.service.grants import Grants
from gateway.mgmt_plane.service.jobs import JobBook, JobRules, Jobs, install_builtins
from gateway.mgmt_plane.service.keys import Keys
from gateway.mgmt_plane.service.notices import Notices
from gateway.mgmt_plane.service.outgoing import Outgoing
from gateway.mgmt_plane.service.partners import Partners
from gateway.mgmt_plane.service.projects import Projects
from gateway.mgmt_plane.service.receipts import Receipts
from gateway.mgmt_plane.service.schedule import Schedule
from gateway.mgmt_plane.service.trail import Trail, TrailedStore
from gateway.mgmt_plane.service.users import Users
from gateway.model import Identity, InstId, NodeId, OwnKey
from gateway.ports import Journal
from gateway.runtime.control_server import ControlServer
from gateway.runtime.journal import FileJournal
from gateway.runtime.launch import Addresses, ProcessLauncher
from gateway.runtime.metrics import Counters, exposition, readiness
from gateway.runtime.nonces import NonceFile
from gateway.runtime.notifier import Notifier
from gateway.runtime.observe import ObservedJournal, failures_of
from gateway.runtime.outbox import Outbox
from gateway.runtime.rekey import Rekeyer
from gateway.runtime.scheduler import Runtime, Scheduler
from gateway.runtime.staging import Folders
from gateway.runtime.supervisor import Child, Supervisor, exit_with_parent, write_atomically
from gateway.runtime.system import SystemClock, SystemEntropy
from gateway.runtime.tasks import TaskRunner
from gateway.runtime.trail import TrailTender
from gateway.store.sql import SqlStore, migrate
from specs.routes import PLATFORM, Side
from specs.states import AuditKind, AuthType

CONTROL_READY: Final = "control.json"
DATA_READY: Final = "data.json"
READY: Final = "ready.json"
ROUTES_S: Final = 30.0
SOCKET_PATH_BYTES: Final = 107
_LONGEST_SOCKET: Final = "control.sock"


def serve(file: Path) -> int:
    """Run the gateway of a node.toml until SIGTERM or SIGINT; the exit code."""
    # Staged rows, logs and sockets, also those of components, are nobody else's, whatever folder they were put in.
    os.umask(0o077)
    try:
        config = load(file)
        run = _folders(config)
    except GatewayError as error:
        sys.stderr.write(f"interconn: {error}\n")
        return 2
    clock = SystemClock()
    journal = FileJournal(config.path(config.paths.log), clock, process="supervisor")
    command = [sys.executable, "-P", "-m", "gateway.app"]
    children = [
        Child("control", [*command, "control", str(file.resolve())], run / CONTROL_READY),
        Child("data", [*command, "data", str(file.resolve())], run / DATA_READY),
    ]
    announcement = json.dumps(
        {
            "pid": os.getpid(),
            "edge_url": config.node.address,
            "platform_url": _url("http", config.platform.host, config.platform.port),
            "admin_url": _url("http", config.admin.host, config.admin.port),
        }
    )
    return asyncio.run(Supervisor(children, journal, clock).run(run / READY, announcement))


def run_data(config: Config) -> int:
    """The data process."""
    clock = SystemClock()
    settings = DataSettings(
        node_id=NodeId(config.node.node_id),
        inst_id=config.node.inst_id,
        edge_host=config.edge.host,
        edge_port=config.edge.port,
        tls_chain=config.key_file(config.keys.tls_chain),
        tls_key=config.key_file(config.keys.tls_key),
        platform_host=config.platform.host,
        platform_port=config.platform.port,
        insecure_platform_nonloopback=config.platform.insecure_allow_remote,
        run_dir=config.path(config.paths.run),
        limits=config.limits,
    )
    journal = FileJournal(_log(config, "data"), clock, process="data")
    return run_data_process(settings, journal=journal, clock=clock, entropy=SystemEntropy())


def run_control(config: Config) -> int:
    """The control process."""
    return asyncio.run(_control(config))


async def _control(config: Config) -> int:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    control = Control(config, FileJournal(_log(config, "control"), SystemClock(), process="control"))
    try:
        await control.start()
        await stopped.wait()
    finally:
        await control.stop()
    return 0


class Control:
    """Management, control and admin of one gateway in one event loop. `start`, then `stop`; not reusable."""

    def __init__(self, config: Config, journal: Journal) -> None:
        """Opens the database and reads the keys; raises GatewayError where they cannot be used."""
        self._config = config
        self._journal = journal = ObservedJournal(journal)
        self._run = config.path(config.paths.run)
        clock, entropy, limits = SystemClock(), SystemEntropy(), config.limits
        self._clock = clock
        identity = _identity(config)
        ring = KeyRing(_signer(config))
        self._ring = ring
        token = read_token(read_secret(config.path(config.admin.token_file)).decode("ascii", "replace"))
        tls_chain, tls_key = config.key_file(config.keys.tls_chain), config.key_file(config.keys.tls_key)

        url = store_url(config)
        migrate(url)
        store = SqlStore(url)
        self._trail = Trail(
            store,
            identity=identity,
            signer=lambda: ring.current,
            clock=clock,
            seal_entries=config.trail.seal_entries,
            seal_ms=round(config.trail.seal_minutes * 60_000),
        )
        self._store = TrailedStore(store, self._trail, clock)
        # Of its own: who asks how things are must not wait in line, nor for a process that is not there.
        self._watch = DataPlaneLink(self._run, wait_s=0.0)
        self._tender = TrailTender(self._trail, journal, stats=self._watch.stats)
        counters = Counters()
        journal.listen(counters.listen)
        journal.listen(failures_of(self._trail.failures, clock))
        self._client = SignedClient(
            identity=identity,
            signer=ring,
            tls_chain=tls_chain,
            tls_key=tls_key,
            limits=limits,
            clock=clock,
            entropy=entropy,
            journal=journal,
        )
        self._link = DataPlaneLink(self._run)
        base: dict[str, Any] = {"identity": identity, "clock": clock, "entropy": entropy}
        outgoing = Outgoing(clock=clock, entropy=entropy)
        self._partners = Partners(
            **base, signer=ring, limits=limits, outgoing=outgoing, default_profile=config.profile.default
        )
        grants = Grants(**base, partners=self._partners)
        audits = Audits(**base, partners=self._partners, grants=grants, outgoing=outgoing, limits=limits)
        overlap_ms = int(config.keys.overlap_h * 3_600_000)
        keys = Keys(identity=identity, ring=ring, partners=self._partners, clock=clock, overlap_ms=overlap_ms)
        services = Services(
            keys=keys,
            identity=identity,
            store=self._store,
            limits=limits,
            partners=self._partners,
            audits=audits,
            datasets=Datasets(**base, grants=grants),
            projects=Projects(**base, partners=self._partners, audits=audits),
        )
        self._outbox = Outbox(
            store=self._store,
            client=self._client,
            journal=journal,
            clock=clock,
            entropy=entropy,
            on_result=audits.call_ended,
        )
        outgoing.on_put(self._outbox.wake)
        of_keys: dict[str, Any] = {"store": self._store, "keys": keys, "ring": ring, "journal": journal}
        self._rekeyer = Rekeyer(**of_keys, client=self._client, entropy=entropy)
        key_admin = KeyAdmin(
            KeyContext(
                **of_keys,
                make=lambda: asyncio.to_thread(_new_signer, config),
                wake=self._rekeyer.wake,
                refusals=self._rekeyer.refusals,
                clock=clock,
            )
        )

        jobs = config.jobs
        rules = JobRules(
            poll_s=jobs.poll_s,
            misses=jobs.misses,
            silence_s=jobs.silence_s,
            task_timeout_s=jobs.task_timeout_s,
            job_timeout_s=jobs.job_timeout_s,
            require_job_audit=jobs.require_job_audit,
            max_running=jobs.max_running,
        )
        book = JobBook(identity=identity, limits=limits, rules=rules, clock=clock, journal=journal)
        transport = f"{_bracketed(config.platform.host)}:{config.platform.port}"
        callback = f"http://{transport}{PLATFORM['platform.task.callback'].path}"
        shared: dict[str, Any] = {
            "store": self._store,
            "book": book,
            "partners": self._partners,
            "peers": self._client,
            "clock": clock,
            "entropy": entropy,
            "journal": journal,
        }
        self._runner = TaskRunner(
            **shared,
            data_plane=self._link,
            launcher=ProcessLauncher(python_path=[Path(__file__).resolve().parent.parent]),
            folders=Folders(config.path(config.paths.work)),
            addresses=Addresses(transport=transport, callback=callback),
        )
        self._runtime = Runtime(self._runner, Scheduler(**shared, grants=grants))
        services_of_jobs: dict[str, Any] = {
            "store": self._store,
            "book": book,
            "audits": audits,
            "grants": grants,
            "partners": self._partners,
            "runtime": self._runtime,
        }
        self._schedule = Schedule(**services_of_jobs, peers=self._client)
        self._jobs = Jobs(**services_of_jobs, entropy=entropy)
        audits.listen(AuditKind.JOB, self._jobs.on_audit)

        state = config.path(config.paths.state)
        folder = state.with_name(f"{state.stem}-nonces")
        self._nonces = NonceFile(folder, life_ms=2 * limits.clock_window_ms, clock=clock)
        edge = Edge(
            nonces=self._nonces,
            **base,
            partners=self._partners,
            store=self._store,
            limits=limits,
            journal=journal,
            handlers={**management_handlers(services), **schedule_handlers(self._schedule)},
        )
        platform = Platform(jobs=self._jobs, schedule=self._schedule, tasks=self._runner, token=token)
        door = PlatformDoor(handlers=platform.handlers(), limits=limits, journal=journal)
        self._server = ControlServer(
            self._run / _LONGEST_SOCKET,
            edge=edge.handle,
            platform=door.handle,
            snapshot=self._snapshot,
            limits=limits,
        )
        four_eyes = frozenset(config.approvals.four_eyes)
        self._notifier: Notifier | None = None
        decisions = Decisions(clock=clock, four_eyes=four_eyes)
        if config.notify.webhook:
            self._notifier = Notifier(
                url=config.notify.webhook,
                secret=read_secret(config.path(config.notify.secret_file)).strip(),
                node_id=identity.node_id,
                store=self._store,
                journal=journal,
                clock=clock,
                entropy=entropy,
                attempts=config.notify.attempts,
            )
            notices = Notices(clock=clock, entropy=entropy, wake=self._notifier.wake)
            notices.attend(self._partners, audits)
            decisions = Decisions(clock=clock, four_eyes=four_eyes, on_first=notices.first_word)
        users = Users(clock=clock, entropy=entropy, four_eyes=bool(four_eyes))
        user_admin = UserAdmin(users=users, store=self._store, clock=clock, entropy=entropy, journal=journal)
        context = AdminContext(
            decisions=decisions,
            four_eyes=four_eyes,
            services=services,
            client=self._client,
            clock=clock,
            entropy=entropy,
            journal=journal,
            fingerprint=ring.current.fingerprint,
            listeners={
                "edge": _url("https", config.edge.host, config.edge.port),
                "platform": _url("http", config.platform.host, config.platform.port),
                "admin": _url("http", config.admin.host, config.admin.port),
            },
        )
        job_admin = JobAdmin(
            jobs=self._jobs,
            schedule=self._schedule,
            files=self._runner,
            sent_bytes=self._link.sent_bytes,
            decisions=decisions,
            store=self._store,
        )
        receipts = Receipts(book=book, partners=self._partners, signer=lambda: ring.current, clock=clock)
        health = Health(
            ready=partial(readiness, store=self._store, stats=self._watch.stats),
            metrics=partial(
                exposition,
                counters=counters,
                store=self._store,
                trail=self._trail,
                stats=self._watch.stats,
                clock=clock,
            ),
        )
        admin = Admin(context)
        invite_admin = InviteAdmin(
            identity=identity,
            signer=lambda: ring.current,
            limits=limits,
            clock=clock,
            journal=journal,
            apply=admin.apply,
        )
        peer_admin = PeerAdmin(services=services, client=self._client, entropy=entropy)
        profile_admin = ProfileAdmin(
            services=services, client=self._client, clock=clock, entropy=entropy, journal=journal
        )
        routes = [
            *admin.routes(),
            *invite_admin.routes(),
            *peer_admin.routes(),
            *profile_admin.routes(),
            *job_admin.routes(),
            *TrailAdmin(self._trail).routes(),
            *ReceiptAdmin(receipts, self._store).routes(),
            *key_admin.routes(),
            *user_admin.routes(),
            *health.routes(),
        ]
        guard = UserGuard(users=users, store=self._store, clock=clock)
        app = admin_app(routes, token=token, limits=limits, journal=journal, guard=guard)
        listeners = {Side.EDGE: config.node.address, Side.PLATFORM: context.listeners["platform"]}
        add_documentation(app, document(version=identity.system_version, servers=listeners))
        described = admin_document(version=identity.system_version, server=context.listeners["admin"])
        add_documentation(app, described, path=ADMIN_OPENAPI_PATH, page_path=ADMIN_PAGE_PATH)
        self._admin = web.AppRunner(app, handle_signals=False, shutdown_timeout=5.0, access_log=None)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._telling: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    async def start(self) -> None:
        """Serve; control.json is there when this returns."""
        self._loop = asyncio.get_running_loop()
        for key in await self._store.run(lambda tx: tx.select(OwnKey)):
            self._ring.add(
                load_signer(auth_type=AuthType(key.auth_type), key_uri=key.key_uri, credential=key.credential)
            )
        await self._trail.started(**_configuration(self._config))
        self._tender.start()
        await self._store.run(lambda tx: install_builtins(tx, now=self._clock.now_ms()))
        self._partners.on_routes_changed(self._routes_changed)
        self._telling = asyncio.create_task(self._tell_routes())
        await self._server.start()
        await self._tell_all()
        await self._runtime.start(self._schedule)
        self._outbox.start()
        if self._notifier is not None:
            self._notifier.start()
        self._rekeyer.start()
        await self._admin.setup()
        await web.TCPSite(self._admin, self._config.admin.host, self._config.admin.port).start()
        write_atomically(self._run / CONTROL_READY, json.dumps({"pid": os.getpid()}))
        self._journal.note("control.ready", admin_port=self._config.admin.port)

    async def stop(self) -> None:
        """Stop taking requests, end components, close."""
        (self._run / CONTROL_READY).unlink(missing_ok=True)
        if self._telling is not None:
            self._telling.cancel()
        await self._admin.cleanup()
        await self._rekeyer.stop()
        await self._outbox.stop()
        if self._notifier is not None:
            await self._notifier.stop()
        await self._runtime.close()
        await self._server.stop()
        await self._nonces.close()
        await self._link.close()
        await self._client.close()
        await self._tender.stop()
        await self._watch.close()
        await self._store.close()
        self._journal.note("control.stopped")

    async def _snapshot(self) -> Mapping[str, Any]:
        """Everything the data process must know (GET /link/snapshot)."""
        routes = await self._store.run(self._partners.routes)
        return snapshot_to_json(routes, await self._runner.rules())

    async def _tell_all(self) -> None:
        """After a restart of this process alone: bring a data process that still runs back to what is true now."""
        link = DataPlaneLink(self._run, wait_s=0.0)
        try:
            await link.replace_all(await self._store.run(self._partners.routes), await self._runner.rules())
        except Unavailable:
            pass  # It is not there yet and will pull the snapshot when it starts.
        finally:
            await link.close()

    def _routes_changed(self) -> None:
        """Called on the store's thread, inside the transaction."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._news.set)

    async def _tell_routes(self) -> None:
        """Tell the data process the routes whenever they change (M-075); it pulls them itself when it starts.

        Also once in a while: a contract that expires makes no event.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), ROUTES_S)
            self._news.clear()
            try:
                await self._link.set_routes(await self._store.run(self._partners.routes))
            except GatewayError as error:
                self._journal.note("routes.untold", reason=str(error))


def _configuration(config: Config) -> dict[str, str]:
    """What the audit trail keeps of the configuration at every start: a change shows as another digest."""
    tree = asdict(config)
    del tree["folder"]
    text = json.dumps(tree, sort_keys=True, default=str)
    return {
        "version": version("interconn"),
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "signing_chain_sha256": _digest(config.key_file(config.keys.signing_chain)),
        "tls_chain_sha256": _digest(config.key_file(config.keys.tls_chain)),
    }


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _identity(config: Config) -> Identity:
    node = config.node
    return Identity(
        node_id=NodeId(node.node_id),
        inst_id=InstId(node.inst_id),
        name=node.name,
        institution=node.institution,
        system="interconn",
        system_version=version("interconn"),
        address=node.address,
        description=node.description,
    )


def _new_signer(config: Config) -> tuple[Signer, str]:
    """A new signing key under this node's CA, next to the configured one, and its URI."""
    keys = config.keys
    chain, key = renew_signing(
        ca=config.key_file(keys.ca),
        ca_key=config.key_file(keys.ca_key),
        directory=config.key_file(keys.signing_key).parent,
        node_id=config.node.node_id,
        now=datetime.now(UTC),
    )
    uri = key.resolve().as_uri()
    return load_signer(auth_type=AuthType.CERT, key_uri=uri, credential=chain.read_text(encoding="ascii")), uri


def store_url(config: Config) -> str:
    """The database's address, password included where it has one; raises CallerError where its file cannot be used."""
    if (file := config.store_file()) is not None:
        return read_secret(file).decode("utf-8", "replace").strip()
    return config.store.url or f"sqlite:///{config.path(config.paths.state)}"


def _signer(config: Config) -> Signer:
    chain = config.key_file(config.keys.signing_chain).read_text(encoding="ascii")
    key = config.key_file(config.keys.signing_key)
    return load_signer(auth_type=AuthType.CERT, key_uri=key.as_uri(), credential=chain)


def _folders(config: Config) -> Path:
    """Make the folders that the processes need; the run folder, which only this user may enter."""
    run = config.path(config.paths.run)
    if len(os.fsencode(run / _LONGEST_SOCKET)) > SOCKET_PATH_BYTES:
        raise ConfigError(f"paths.run {run} is too long for a Unix socket (at most {SOCKET_PATH_BYTES} bytes in all)")
    for folder in (run, config.path(config.paths.work), config.path(config.paths.state).parent):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigError(f"cannot make {folder}: {error.strerror}") from error
    return run


def _log(config: Config, process: str) -> Path:
    file = config.path(config.paths.log)
    return file.with_name(f"{file.stem}-{process}{file.suffix}")


def _url(scheme: str, host: str, port: int) -> str:
    return f"{scheme}://{_bracketed(host)}:{port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def main(arguments: list[str]) -> int:
    """Entry of a child process: `control FILE` or `data FILE`."""
    process, file = arguments
    exit_with_parent()
    try:
        config = load(Path(file))
        return run_control(config) if process == "control" else run_data(config)
    except GatewayError as error:
        sys.stderr.write(f"interconn {process}: {error}\n")
    except OSError as error:
        sys.stderr.write(f"interconn {process}: {error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
