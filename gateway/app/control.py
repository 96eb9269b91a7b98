"""The control process, made from a node.toml: management, control, admin API and database in one event loop."""

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, TextIO
from urllib.parse import urlsplit

from aiohttp import web

from gateway.app.database import store_url
from gateway.app.node import CONTROL_READY, bracketed, clock_of, log_of, url_of
from gateway.auth.chain import certificates, fingerprint
from gateway.auth.keys import KeyRing, load_signer, path_of, read_passphrase, read_secret
from gateway.auth.pki import load_issuer
from gateway.auth.revocation import RevocationLists
from gateway.auth.revocation import make as make_crl
from gateway.auth.schemes import Signer, parse_credential
from gateway.auth.tls_ring import TlsFiles, TlsRing
from gateway.config import Config, ConfigError, ContainersSection
from gateway.data_plane.io.handover import RoadsLink
from gateway.data_plane.io.link import DataPlaneLink, snapshot_to_json
from gateway.data_plane.io.process import loop_factory
from gateway.data_plane.io.stream_local import SOCKET as TASKS_SOCKET
from gateway.errors import GatewayError, Kind, PeerError, Refused, Unavailable
from gateway.mgmt_plane.core.expiry import Deadline
from gateway.mgmt_plane.core.profile import WITHOUT_SIGNATURE
from gateway.mgmt_plane.rest.admin import Admin, AdminContext
from gateway.mgmt_plane.rest.admin_channel import ChannelAdmin
from gateway.mgmt_plane.rest.admin_crls import CrlAdmin, Write
from gateway.mgmt_plane.rest.admin_expiry import ExpiryAdmin
from gateway.mgmt_plane.rest.admin_grants import GrantAdmin
from gateway.mgmt_plane.rest.admin_invites import InviteAdmin
from gateway.mgmt_plane.rest.admin_jobs import JobAdmin
from gateway.mgmt_plane.rest.admin_keys import KeyAdmin, KeyContext
from gateway.mgmt_plane.rest.admin_logs import LogAdmin
from gateway.mgmt_plane.rest.admin_notices import NoticeAdmin
from gateway.mgmt_plane.rest.admin_outbox import OutboxAdmin
from gateway.mgmt_plane.rest.admin_peer import PeerAdmin
from gateway.mgmt_plane.rest.admin_profiles import ProfileAdmin
from gateway.mgmt_plane.rest.admin_receipts import ReceiptAdmin
from gateway.mgmt_plane.rest.admin_server import admin_app, read_token
from gateway.mgmt_plane.rest.admin_sessions import SessionAdmin
from gateway.mgmt_plane.rest.admin_tls import MadeTls, TlsAdmin
from gateway.mgmt_plane.rest.admin_trail import TrailAdmin
from gateway.mgmt_plane.rest.admin_users import UserAdmin, UserGuard
from gateway.mgmt_plane.rest.admin_ways import WayAdmin
from gateway.mgmt_plane.rest.client import SignedClient
from gateway.mgmt_plane.rest.documentation import (
    ADMIN_OPENAPI_PATH,
    ADMIN_PAGE_PATH,
    add_documentation,
    admin_document,
    document,
)
from gateway.mgmt_plane.rest.edge import Edge
from gateway.mgmt_plane.rest.extensions import announcing, extension_handlers
from gateway.mgmt_plane.rest.handlers import Services, management_handlers
from gateway.mgmt_plane.rest.health import Health
from gateway.mgmt_plane.rest.platform import Platform
from gateway.mgmt_plane.rest.platform_door import PlatformDoor
from gateway.mgmt_plane.rest.schedule import schedule_handlers
from gateway.mgmt_plane.service.audits import Audits
from gateway.mgmt_plane.service.crls import Crls
from gateway.mgmt_plane.service.datasets import Datasets
from gateway.mgmt_plane.service.deadlines import own as own_deadlines
from gateway.mgmt_plane.service.decisions import Decisions
from gateway.mgmt_plane.service.grants import Grants
from gateway.mgmt_plane.service.jobs import JobBook, JobRules, Jobs, install_builtins
from gateway.mgmt_plane.service.keys import Keys
from gateway.mgmt_plane.service.known import KnownPartners
from gateway.mgmt_plane.service.log_tails import ROUTE as LOG_ROUTE
from gateway.mgmt_plane.service.log_tails import LogTails
from gateway.mgmt_plane.service.notices import Notices
from gateway.mgmt_plane.service.outgoing import Outgoing
from gateway.mgmt_plane.service.partners import Partners
from gateway.mgmt_plane.service.projects import Projects
from gateway.mgmt_plane.service.receipt_exchange import ReceiptExchange
from gateway.mgmt_plane.service.receipts import Receipts
from gateway.mgmt_plane.service.reconcile import Reconcile
from gateway.mgmt_plane.service.revocation import KINDS, Revocation
from gateway.mgmt_plane.service.schedule import Schedule
from gateway.mgmt_plane.service.sessions import DeclaredSessions
from gateway.mgmt_plane.service.tls_keys import TlsKeys
from gateway.mgmt_plane.service.trail import Trail, TrailedStore
from gateway.mgmt_plane.service.users import Users
from gateway.mgmt_plane.service.ways import Ways
from gateway.model import Contract, Identity, InstId, NodeId, OutCall, OwnKey
from gateway.ports import Journal, Network, PeerReply, PeerRoute, SessionRule, Tx
from gateway.runtime.control_server import ControlServer
from gateway.runtime.declared import DeclaredTeller
from gateway.runtime.engines import ByImage, Engine, EngineError, EngineLauncher
from gateway.runtime.expiry import ExpiryWatch
from gateway.runtime.journal import FileJournal
from gateway.runtime.launch import WHY, Addresses, Launcher, ProcessLauncher
from gateway.runtime.metrics import Counters, exposition, readiness
from gateway.runtime.new_keys import OwnFiles, make_signing, make_tls
from gateway.runtime.nonces import NonceFile
from gateway.runtime.notifier import Notifier
from gateway.runtime.observe import ObservedJournal, failures_of
from gateway.runtime.outbox import Outbox
from gateway.runtime.reconcile import Reconciler
from gateway.runtime.rekey import Rekeyer
from gateway.runtime.scheduler import Runtime, Scheduler
from gateway.runtime.shim import remove_empty_cgroups
from gateway.runtime.staging import Folders
from gateway.runtime.supervisor import ABANDONED, write_atomically
from gateway.runtime.system import SystemClock, SystemEntropy
from gateway.runtime.tasks import TaskRunner
from gateway.runtime.tracing import Spans, exporting
from gateway.runtime.trail import TrailTender
from gateway.runtime.warm import Warm
from gateway.store.sql import SqlStore, migrate
from specs.routes import PLATFORM, Side
from specs.states import ApprovalState, AuditKind, AuthType

ROUTES_S: Final = 30.0
ALONE_S: Final = 20.0
"""A former control process, whose supervisor was killed, may take so long to go."""


def run_control(config: Config) -> int:
    """The control process."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_control(config))


async def _control(config: Config) -> int:
    stopped, asked = asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        asked.append(number)
        stopped.set()

    for number in (signal.SIGTERM, signal.SIGINT, ABANDONED):
        loop.add_signal_handler(number, stop, number)
    lock = await _alone(config.path(config.paths.run) / "control.lock")
    if lock is None:
        sys.stderr.write("interconn control: another control process of this node still runs\n")
        return 1
    control = Control(config, FileJournal(log_of(config, "control"), clock_of(config), process="control"))
    try:
        await control.start()
        await stopped.wait()
    finally:
        # Who only lost its supervisor, or could not start, leaves the components to the process that comes next.
        await control.stop(leave=not asked or ABANDONED in asked)
        lock.close()
    return 0


async def _alone(file: Path) -> TextIO | None:
    """Hold a lock that ends with this process; None where a former one does not go within ALONE_S."""
    lock = file.open("w")
    deadline = SystemClock().monotonic() + ALONE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if SystemClock().monotonic() > deadline:
                lock.close()
                return None
            await asyncio.sleep(0.05)
        else:
            return lock


class Control:
    """Management, control and admin of one gateway in one event loop. `start`, then `stop`; not reusable."""

    def __init__(self, config: Config, journal: Journal) -> None:
        """Opens the database and reads the keys; raises GatewayError where they cannot be used."""
        self._config = config
        self._journal = journal = ObservedJournal(journal)
        self._run = config.path(config.paths.run)
        clock, entropy, limits = clock_of(config), SystemEntropy(), config.limits
        self._clock = clock
        identity = _identity(config)
        ring = KeyRing(_signer(config))
        self._ring = ring
        token = read_token(read_secret(config.path(config.admin.token_file)).decode("ascii", "replace"))
        tls_chain, tls_key = config.key_file(config.keys.tls_chain), config.key_file(config.keys.tls_key)
        self._shown = shown = TlsRing(TlsFiles(_ca_of(tls_chain), tls_chain, tls_key))
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
        lists = RevocationLists()
        journal.listen(counters.listen)
        self._spans: Spans | None = None
        if config.tracing.endpoint:
            self._spans = exporting(config.tracing.endpoint, node_id=identity.node_id, clock=clock)
            journal.listen(self._spans.listen)
        journal.listen(failures_of(self._trail.failures, clock))
        self._client = SignedClient(
            identity=identity,
            signer=ring,
            shown=shown,
            limits=limits,
            clock=clock,
            entropy=entropy,
            journal=journal,
            lists=lists,
            reach=RoadsLink(self._run).reach,
        )
        self._link = DataPlaneLink(self._run)
        base: dict[str, Any] = {"identity": identity, "clock": clock, "entropy": entropy}
        outgoing = Outgoing(clock=clock, entropy=entropy)
        self._partners = Partners(
            **base,
            signer=ring,
            limits=limits,
            outgoing=outgoing,
            default_profile=config.profile.default,
            lists=lists,
            insecure_unsigned=config.profile.insecure_unsigned,
        )
        self._ways = Ways(partners=self._partners, clock=clock)
        self._crls = Crls(partners=self._partners, lists=lists, clock=clock)
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
        self._audits = audits
        self._outbox = Outbox(
            store=self._store,
            client=self._client,
            journal=journal,
            clock=clock,
            entropy=entropy,
            on_result=self._call_ended,
            longest_pause_ms=round(config.delivery.longest_pause_s * 1000),
        )
        outgoing.on_put(self._outbox.wake)
        self._reconciler = Reconciler(
            store=self._store,
            client=self._client,
            reconcile=Reconcile(partners=self._partners, audits=audits, clock=clock),
            journal=journal,
            clock=clock,
            entropy=entropy,
            every_s=config.delivery.reconcile_s,
        )
        outbox_admin = OutboxAdmin(
            store=self._store, clock=clock, wake=self._outbox.wake, compare=self._reconciler.round
        )
        of_keys: dict[str, Any] = {"store": self._store, "keys": keys, "ring": ring, "journal": journal}
        self._tls = TlsKeys(ring=ring, shown=shown, partners=self._partners, clock=clock, overlap_ms=overlap_ms)
        self._partners.on_shown(self._tls.shown_to)
        self._rekeyer = Rekeyer(**of_keys, client=self._client, entropy=entropy, settle=self._settle)
        tls_admin = TlsAdmin(
            store=self._store,
            tls=self._tls,
            keys=keys,
            make=self._make_tls,
            changed=self._tls_changed,
            learn=lambda signer, emergency: ring.add(signer, emergency=emergency),
            journal=journal,
        )
        key_admin = KeyAdmin(
            KeyContext(
                **of_keys,
                make=self._make_signing,
                take=self._take_signing,
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
            heartbeat_s=jobs.heartbeat_s,
            queue_s=jobs.queue_s,
            job_timeout_s=jobs.job_timeout_s,
            approval_s=jobs.approval_s,
            require_job_audit=jobs.require_job_audit,
            require_project=jobs.require_project,
            max_running=jobs.max_running,
            threads=jobs.threads,
            max_cpus=jobs.max_cpus,
            max_memory_gib=jobs.max_memory_gib,
            durability=config.channel.durability,
        )
        book = JobBook(identity=identity, limits=limits, rules=rules, clock=clock, journal=journal)
        book.on_end(grants.job_ended)
        sessions = DeclaredSessions(
            partners=self._partners, book=book, clock=clock, durability=config.channel.durability
        )
        self._declared = DeclaredTeller(store=self._store, sessions=sessions, data_plane=self._link, journal=journal)
        session_admin = SessionAdmin(
            store=self._store, sessions=sessions, changed=self._declared.tell, clock=clock, journal=journal
        )
        receipts = Receipts(book=book, partners=self._partners, signer=lambda: ring.current, clock=clock)
        self._receipts = ReceiptExchange(receipts=receipts, book=book, outgoing=outgoing)
        transport = f"{bracketed(config.platform.host)}:{config.platform.port}"
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
            launcher=_launcher(config.containers, warm=jobs.warm),
            folders=Folders(config.path(config.paths.work)),
            addresses=Addresses(
                transport=transport, callback=callback, channel=str(config.path(config.paths.run) / TASKS_SOCKET)
            ),
        )
        self._runtime = Runtime(self._runner, Scheduler(**shared, grants=grants, outgoing=outgoing))
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
        revocation = Revocation(book=book, grants=grants, audits=audits, runtime=self._runtime)
        for kind in KINDS:
            audits.listen(kind, revocation.on_audit)
        self._partners.on_closed(revocation.on_closed)

        state = config.path(config.paths.state)
        folder = state.with_name(f"{state.stem}-nonces")
        self._nonces = NonceFile(folder, life_ms=2 * limits.clock_window_ms, clock=clock)
        tails = LogTails(
            store=self._store,
            book=book,
            partners=self._partners,
            peers=self._client,
            logs=self._runner,
            words=frozenset(WHY),
        )
        known = KnownPartners(self._partners, self._store)
        self._store.on_write(Contract, known.forget)
        edge = Edge(
            nonces=self._nonces,
            known=known,
            lists=lists,
            insecure_unsigned=config.profile.insecure_unsigned,
            **base,
            partners=self._partners,
            store=self._store,
            limits=limits,
            journal=journal,
            handlers={
                **management_handlers(services),
                **announcing(schedule_handlers(self._schedule), identity),
                **extension_handlers(self._receipts, self._store),
                LOG_ROUTE: tails.answer,
            },
        )
        platform = Platform(jobs=self._jobs, schedule=self._schedule, tasks=self._runner, token=token)
        door = PlatformDoor(handlers=platform.handlers(), limits=limits, journal=journal)
        self._server = ControlServer(
            self._run,
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
            fingerprint=lambda: ring.greeting.fingerprint,
            listeners={
                "edge": url_of("https", config.edge.host, config.edge.port),
                "platform": url_of("http", config.platform.host, config.platform.port),
                "admin": url_of("http", config.admin.host, config.admin.port),
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
        self._expiry = ExpiryWatch(
            store=self._store,
            own=self._own_ends,
            stats=self._watch.stats,
            thresholds=config.expiry.warn_days,
            clock=clock,
            journal=journal,
        )
        health = Health(
            ready=partial(readiness, writable=store.writable, stats=self._watch.stats),
            metrics=partial(
                exposition,
                counters=counters,
                store=self._store,
                trail=self._trail,
                stats=self._watch.stats,
                figures=self._watch.figures,
                clock=clock,
                more=self._expiry.exposition,
            ),
        )
        admin = Admin(context)
        invite_admin = InviteAdmin(
            identity=identity,
            signer=lambda: ring.greeting,
            limits=limits,
            clock=clock,
            journal=journal,
            apply=admin.apply,
        )
        peer_admin = PeerAdmin(services=services, client=self._client, entropy=entropy)
        profile_admin = ProfileAdmin(
            services=services, client=self._client, clock=clock, entropy=entropy, journal=journal
        )
        way_admin = WayAdmin(
            ways=self._ways, store=self._store, stats=self._watch.stats, tell=self._tell_reachable, journal=journal
        )
        routes = [
            *admin.routes(),
            *invite_admin.routes(),
            *peer_admin.routes(),
            *profile_admin.routes(),
            *job_admin.routes(),
            *LogAdmin(tails).routes(),
            *TrailAdmin(self._trail).routes(),
            *ReceiptAdmin(receipts, self._store).routes(),
            *GrantAdmin(grants, self._store, clock).routes(),
            *key_admin.routes(),
            *user_admin.routes(),
            *NoticeAdmin(
                store=self._store, clock=clock, wake=None if self._notifier is None else self._notifier.wake
            ).routes(),
            *ExpiryAdmin(soon=self._expiry.soon, clock=clock).routes(),
            *tls_admin.routes(),
            *CrlAdmin(
                store=self._store,
                crls=self._crls,
                own=self._own_list,
                clock=clock,
                journal=journal,
            ).routes(),
            *outbox_admin.routes(),
            *way_admin.routes(),
            *session_admin.routes(),
            *ChannelAdmin(self._watch.figures).routes(),
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
        self._telling_turn = asyncio.Lock()

    async def start(self) -> None:
        """Serve; control.json is there when this returns."""
        self._loop = asyncio.get_running_loop()
        for key in await self._store.run(lambda tx: tx.select(OwnKey)):
            self._ring.add(
                load_signer(
                    auth_type=AuthType(key.auth_type),
                    key_uri=key.key_uri,
                    credential=key.credential,
                    passphrase=_passphrase(self._config),
                ),
                emergency=key.emergency,
            )
        await self._tls.load(self._store)
        await self._crls.load(self._store)
        await self._trail.started(**_configuration(self._config))
        self._tender.start()
        if offset := self._config.node.insecure_clock_offset:
            self._journal.note("insecure.clock_offset", seconds=offset)
        if self._config.profile.insecure_unsigned:
            await self._warn_unsigned()
        await self._store.run(lambda tx: install_builtins(tx, now=self._clock.now_ms()))
        self._partners.on_routes_changed(self._routes_changed)
        self._telling = asyncio.create_task(self._tell_routes())
        await asyncio.to_thread(remove_empty_cgroups)
        await self._runtime.adopt()
        await self._server.start()
        await self._tell_all()
        await self._runtime.start(self._schedule)
        self._outbox.start()
        if self._notifier is not None:
            self._notifier.start()
        self._reconciler.start()
        self._rekeyer.start()
        self._expiry.start()
        await self._admin.setup()
        await web.TCPSite(self._admin, self._config.admin.host, self._config.admin.port).start()
        write_atomically(self._run / CONTROL_READY, json.dumps({"pid": os.getpid()}))
        self._journal.note("control.ready", admin_port=self._config.admin.port)

    async def _warn_unsigned(self) -> None:
        """At every start, in log and audit trail: which partners need not sign."""
        found = await self._store.run(
            lambda tx: [
                each
                for name in WITHOUT_SIGNATURE
                for each in tx.select(Contract, profile=name, status=ApprovalState.APPROVED)
            ]
        )
        names = ", ".join(each.peer_node_id for each in found)
        self._journal.note("insecure.unsigned", allowed=True, peers=names)
        await self._trail.tell("insecure.unsigned", "", peers=names)

    async def stop(self, *, leave: bool = False) -> None:
        """Stop taking requests, end components unless they are to be left, close."""
        (self._run / CONTROL_READY).unlink(missing_ok=True)
        if self._telling is not None:
            self._telling.cancel()
        await self._admin.cleanup()
        await self._expiry.stop()
        await self._rekeyer.stop()
        await self._reconciler.stop()
        await self._outbox.stop()
        if self._notifier is not None:
            await self._notifier.stop()
        await self._runtime.close(leave=leave)
        await self._server.stop()
        await self._nonces.close()
        await self._link.close()
        await self._client.close()
        await self._tender.stop()
        await self._watch.close()
        await self._store.close()
        if self._spans is not None:
            await asyncio.to_thread(self._spans.close)
        self._journal.note("control.stopped")

    def _call_ended(self, tx: Tx, call: OutCall, answer: PeerReply | PeerError | None) -> None:
        """As runtime.outbox.OnResult."""
        self._audits.call_ended(tx, call, answer)
        self._receipts.call_ended(tx, call, answer)

    async def _snapshot(self) -> Mapping[str, Any]:
        """Everything the data process must know (GET /link/snapshot)."""
        routes, network = await self._store.run(self._reachable)
        shown = str(self._shown.shown.chain), str(self._shown.shown.key)
        return snapshot_to_json(routes, await self._rules(), shown=shown, network=network)

    def _reachable(self, tx: Tx) -> tuple[Sequence[PeerRoute], Network]:
        return self._partners.routes(tx), self._ways.network(tx)

    async def _rules(self) -> list[SessionRule]:
        return [*await self._runner.rules(), *await self._declared.rules()]

    async def _tell_all(self) -> None:
        """After a restart of this process alone: bring a data process that still runs back to what is true now."""
        link = DataPlaneLink(self._run, wait_s=0.0)
        try:
            await link.show(str(self._shown.shown.chain), str(self._shown.shown.key))
            routes, network = await self._store.run(self._reachable)
            await link.set_network(network)
            await link.replace_all(routes, await self._rules())
        except Unavailable:
            pass  # It is not there yet and will pull the snapshot when it starts.
        finally:
            await link.close()

    async def _files(self) -> OwnFiles:
        """Where our keys are, with the CA that counts now."""
        keys, newest = self._config.keys, await self._store.run(self._tls.newest)
        host = urlsplit(self._config.node.address).hostname
        return OwnFiles(
            directory=self._config.key_file(keys.ca).parent,
            node_id=self._config.node.node_id,
            hosts=(host,) if host else (),
            ca=path_of(newest.ca_uri) if newest is not None else self._config.key_file(keys.ca),
            ca_key=path_of(newest.ca_key_uri) if newest is not None else self._config.key_file(keys.ca_key),
        )

    async def _make_signing(self) -> tuple[Signer, str]:
        keys = self._config.keys
        if not keys.signing_key.startswith("file:"):
            raise Refused(
                "the signing key is in a token: make the next one there, then key rotate --key URI --credential FILE",
                kind=Kind.NOT_OFFERED,
            )
        return await asyncio.to_thread(
            make_signing,
            await self._files(),
            auth_type=AuthType(keys.auth_type),
            passphrase=_passphrase(self._config),
            now=self._now(),
        )

    async def _take_signing(self, key_uri: str, credential: str) -> tuple[Signer, str]:
        """A key that our admin made; raises CallerError where it does not fit."""
        auth_type, passphrase = AuthType(self._config.keys.auth_type), _passphrase(self._config)
        signer = await asyncio.to_thread(
            load_signer, auth_type=auth_type, key_uri=key_uri, credential=credential, passphrase=passphrase
        )
        if auth_type is AuthType.CERT:
            parse_credential(auth_type.value, credential).check(
                node_id=self._config.node.node_id, now_ms=self._clock.now_ms()
            )
        return signer, key_uri

    async def _make_tls(self, new_ca: bool, emergency: bool) -> MadeTls:  # as admin_tls.Make says
        return await asyncio.to_thread(
            make_tls,
            await self._files(),
            before=[self._shown.shown.chain],
            new_ca=new_ca,
            emergency=emergency,
            signing=self._ring.current.auth_type is AuthType.CERT,
            now=self._now(),
        )

    def _own_ends(self) -> list[Deadline]:
        return own_deadlines(self._ring.current, self._shown.shown.chain.read_text(encoding="ascii"))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)

    async def _own_list(self) -> tuple[str, Write]:
        """The fingerprint of this node's CA, and how it signs a revocation list."""
        files, now = await self._files(), self._now()
        ca, key = await asyncio.to_thread(load_issuer, files.ca, files.ca_key)
        return fingerprint(ca), lambda revoked, until: make_crl(ca, key, revoked, now=now, until=until)

    async def _settle(self) -> None:
        """Partners may have learned our newest CA: see whether the listener changes over."""
        if await self._store.run(self._tls.settle) is not None:
            await self._tls_changed()

    async def _tls_changed(self) -> None:
        files = await self._tls.load(self._store)
        try:
            await self._link.show(str(files.chain), str(files.key))
        except Unavailable as error:
            self._journal.note("certificate.untold", reason=str(error))  # it pulls the snapshot when it starts
        self._rekeyer.wake()
        self._routes_changed()

    def _routes_changed(self) -> None:
        """Called on the store's thread, inside the transaction."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._news.set)

    async def _tell_reachable(self) -> None:
        """Tell the data process whom it reaches, and how, as of now."""
        async with self._telling_turn:
            try:
                routes, network = await self._store.run(self._reachable)
                await self._link.set_network(network)
                await self._link.set_routes(routes)
            except GatewayError as error:
                self._journal.note("routes.untold", reason=str(error))

    async def _tell_routes(self) -> None:
        """Tell the data process the routes whenever they change (M-075); it pulls them itself when it starts.

        Also once in a while: a contract that expires makes no event.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ROUTES_S):
                    await self._news.wait()
            self._news.clear()
            await self._tell_reachable()
            await self._declared.tell()  # a contract that ended took its partner out of them


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


def _ca_of(chain: Path) -> str:
    """The fingerprint of the CA at the end of our own chain."""
    return fingerprint(certificates(chain.read_text(encoding="ascii"))[-1])


def _signer(config: Config) -> Signer:
    keys = config.keys
    return load_signer(
        auth_type=AuthType(keys.auth_type),
        key_uri=config.key_uri(keys.signing_key),
        credential=config.key_file(keys.signing_chain).read_text(encoding="ascii"),
        passphrase=_passphrase(config),
    )


def _passphrase(config: Config) -> bytes | None:
    return read_passphrase(config.key_uri(config.keys.signing_passphrase) if config.keys.signing_passphrase else "")


def _launcher(section: ContainersSection, *, warm: bool = False) -> Launcher:
    """Processes of this machine, and containers where an engine is named. Raises ConfigError."""
    package = Path(__file__).resolve().parents[2]
    waiting = Warm(sys.executable, str(package)) if warm else None
    processes = ProcessLauncher(python_path=[package], warm=waiting)
    if not section.engine:
        return processes
    try:
        if section.engine == "docker":
            # Each needs an extra that most nodes do without.
            from gateway.runtime.docker_engine import DockerEngine  # noqa: PLC0415

            engine: Engine = DockerEngine(address=section.address, network=section.network)
        else:
            from gateway.runtime.kubernetes_engine import KubernetesEngine  # noqa: PLC0415

            engine = KubernetesEngine(namespace=section.namespace, claim=section.claim, pull=section.pull)
    except ImportError as error:
        raise ConfigError(
            f"containers.engine {section.engine}: install the extra {section.engine!r} of this package"
        ) from error
    except EngineError as error:
        raise ConfigError(f"containers.engine {section.engine}: {error}") from error
    return ByImage(processes, EngineLauncher(engine))
