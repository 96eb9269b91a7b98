"""The admin listener of one node of tests.mgmt.world over real HTTP, with users of every role."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from gateway.mgmt_plane.core.admin_messages import schemas
from gateway.mgmt_plane.rest.admin_grants import GrantAdmin
from gateway.mgmt_plane.rest.admin_invites import InviteAdmin
from gateway.mgmt_plane.rest.admin_notices import NoticeAdmin
from gateway.mgmt_plane.rest.admin_peer import PeerAdmin
from gateway.mgmt_plane.rest.admin_profiles import ProfileAdmin
from gateway.mgmt_plane.rest.admin_server import AdminRoute, admin_app
from gateway.mgmt_plane.rest.admin_sessions import SessionAdmin
from gateway.mgmt_plane.rest.admin_trail import TrailAdmin
from gateway.mgmt_plane.rest.admin_users import UserAdmin, UserGuard
from gateway.mgmt_plane.service.jobs import JobBook, JobRules
from gateway.mgmt_plane.service.sessions import DeclaredSessions
from gateway.mgmt_plane.service.users import Users
from gateway.runtime.declared import DeclaredTeller
from specs.admin import BASE, ROUTES, Role
from tests.control.world import FakeDataPlane
from tests.mgmt.world import Node

TOKEN = "t" * 40


@dataclass
class Listener:
    session: ClientSession
    base: str
    users: Users
    tokens: dict[str, str] = field(default_factory=lambda: {"machine": TOKEN})

    async def ask(
        self, who: str, method: str, path: str, body: Any = None, *, raw: bytes | None = None
    ) -> tuple[int, Any]:
        """who: a user of `tokens`, "" for no token, or a token."""
        headers = {"Authorization": f"Bearer {self.tokens.get(who, who)}"} if who else {}
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        async with self.session.request(method, self.base + path, data=data, headers=headers) as answer:
            text = await answer.read()
            return answer.status, json.loads(text) if answer.content_type == "application/json" else text

    async def name(self, who: str, name: str, body: Any = None, /, **params: str) -> tuple[int, Any]:
        """A route by its name in specs.admin."""
        route = ROUTES[name]
        return await self.ask(who, route.method, route.path.format(**params), body)

    async def make(self, name: str, role: Role) -> None:
        assert (await self.name("machine", "user.add", {"name": name, "role": role.value}))[0] == 200
        status, made = await self.name("machine", "user.token", {}, name=name)
        assert status == 200
        self.tokens[name] = made["token"]


def session_admin(node: Node) -> SessionAdmin:
    of_node: dict[str, Any] = {"store": node.store, "journal": node.journal}
    book = JobBook(identity=node.identity, limits=node.limits, rules=JobRules(), clock=node.clock, journal=node.journal)
    sessions = DeclaredSessions(partners=node.partners, book=book, clock=node.clock)
    teller = DeclaredTeller(sessions=sessions, data_plane=FakeDataPlane(), **of_node)
    return SessionAdmin(sessions=sessions, changed=teller.tell, clock=node.clock, **of_node)


def routes_of(node: Node, users: Users) -> list[AdminRoute]:
    of_node: dict[str, Any] = {"clock": node.clock, "journal": node.journal}
    calls: dict[str, Any] = {"services": node.services, "client": node.client, "entropy": node.entropy}
    return [
        *node.admin.routes(),
        *node.key_admin.routes(),
        *node.tls_admin.routes(),
        *node.crl_admin.routes(),
        *node.outbox_admin.routes(),
        *NoticeAdmin(store=node.store, clock=node.clock, wake=lambda: None).routes(),
        *session_admin(node).routes(),
        *GrantAdmin(node.grants, node.store, node.clock).routes(),
        *InviteAdmin(
            identity=node.identity,
            signer=lambda: node.signer,
            limits=node.limits,
            apply=node.admin.apply,
            **of_node,
        ).routes(),
        *PeerAdmin(**calls).routes(),
        *ProfileAdmin(**calls, **of_node).routes(),
        *TrailAdmin(node.trail).routes(),
        *UserAdmin(users=users, store=node.store, entropy=node.entropy, **of_node).routes(),
    ]


@asynccontextmanager
async def listening(node: Node, *, four_eyes: bool = False) -> AsyncIterator[Listener]:
    users = Users(clock=node.clock, entropy=node.entropy, four_eyes=four_eyes)
    guard = UserGuard(users=users, store=node.store, clock=node.clock)
    app = admin_app(routes_of(node, users), token=TOKEN, limits=node.limits, journal=node.journal, guard=guard)
    server = TestServer(app)
    await server.start_server(access_log=None)
    try:
        async with ClientSession() as session:
            yield Listener(session, f"http://{server.host}:{server.port}", users)
    finally:
        await server.close()


def texts_of(schema: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Where a body may hold text, by its schema."""
    shared = schemas()["$defs"]
    if "$ref" in schema:
        schema = shared[schema["$ref"].rpartition("/")[2]]
    found = []
    for name, rule in schema.get("properties", {}).items():
        found += texts_of(rule, (*path, name))
    if not schema.get("properties") and path:
        found.append(path)
    return found


__all__ = ["BASE", "TOKEN", "Listener", "listening", "routes_of", "texts_of"]
