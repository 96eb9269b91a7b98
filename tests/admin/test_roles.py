"""Every route of the admin API and every role: who may, who may not; and what is in no table is for nobody."""

import re
from typing import Any

import pytest

from gateway.mgmt_plane.core.admin_messages import schemas
from gateway.mgmt_plane.rest.admin_channel import ChannelAdmin
from gateway.mgmt_plane.rest.admin_expiry import ExpiryAdmin
from gateway.mgmt_plane.rest.admin_jobs import JobAdmin
from gateway.mgmt_plane.rest.admin_logs import LogAdmin
from gateway.mgmt_plane.rest.admin_receipts import ReceiptAdmin
from gateway.mgmt_plane.rest.admin_server import AdminRoute, PersonalRoute, admin_app
from gateway.mgmt_plane.rest.admin_ways import WayAdmin
from gateway.mgmt_plane.rest.health import Health
from gateway.mgmt_plane.service.users import Users
from gateway.model import Limits
from specs.admin import BASE, BY_PLACE, OPEN, OUTSIDE, ROUTES, Role
from tests.admin.world import TOKEN, Listener, routes_of
from tests.mgmt.world import Node

USERS = {"ada": Role.ADMIN, "otto": Role.OPERATOR, "eve": Role.AUDITOR}
REFUSED = re.compile(r"this is for .*, not for \w+")


def all_routes(node: Node) -> list[AdminRoute]:
    nothing: Any = None
    return [
        *routes_of(node, Users(clock=node.clock, entropy=node.entropy)),
        *JobAdmin(
            jobs=nothing, schedule=nothing, files=nothing, sent_bytes=nothing, decisions=nothing, store=nothing
        ).routes(),
        *ReceiptAdmin(nothing, nothing).routes(),
        *LogAdmin(nothing).routes(),
        *ExpiryAdmin(soon=nothing, clock=nothing).routes(),
        *ChannelAdmin(nothing).routes(),
        *WayAdmin(ways=nothing, store=nothing, stats=nothing, tell=nothing, journal=nothing).routes(),
        *Health(ready=nothing, metrics=nothing).routes(),
    ]


def test_the_table_and_the_routes_are_the_same(node: Node) -> None:
    served = [route.name for route in all_routes(node)]
    assert len(served) == len(set(served))
    assert set(served) == set(ROUTES)
    assert len(BY_PLACE) == len(ROUTES)
    for part in ("bodies", "queries", "answers"):
        assert set(schemas()[part]) <= set(ROUTES)
    for name, route in ROUTES.items():
        assert route.path.startswith(BASE + "/") or name in OUTSIDE
        assert bool(route.roles) != (name in OPEN)
        assert Role.ADMIN in route.roles or name in OPEN
        if route.method == "POST" and Role.AUDITOR in route.roles:
            # What an auditor may change is their own, or nothing.
            assert name in {"trail.export", "user.token", "user.token.revoke", "user.password", "user.logout"}


async def test_every_route_for_every_role(listener: Listener, node: Node) -> None:
    """Handlers are replaced, so that the door alone answers."""
    reached: list[str] = []

    def standing_in(route: AdminRoute) -> AdminRoute:
        async def handler(*_: Any) -> Any:
            reached.append(route.name)
            return {}

        kind = PersonalRoute if isinstance(route, PersonalRoute) else AdminRoute
        return kind(route.method, route.path, handler)

    from aiohttp.test_utils import TestServer

    from gateway.mgmt_plane.rest.admin_users import UserGuard

    class Unchecked(UserGuard):
        def failed(self, address: str) -> None:
            pass

    guard = Unchecked(users=listener.users, store=node.store, clock=node.clock)
    routes = [standing_in(each) for each in all_routes(node)]
    hidden = AdminRoute("GET", BASE + "/forgotten", routes[0].handler)
    app = admin_app([*routes, hidden], token=TOKEN, limits=Limits(), journal=node.journal, guard=guard)
    server = TestServer(app)
    await server.start_server(access_log=None)
    listener.base = f"http://{server.host}:{server.port}"
    bodies = {
        name: {key: _example(key) for key in schema.get("required", ())} for name, schema in schemas()["bodies"].items()
    }
    try:
        for name, route in ROUTES.items():
            path = re.sub(r"\{\w+\}", "x", route.path) + ("?first=1&last=2" if name == "trail.entries" else "")
            for who, role in USERS.items():
                reached.clear()
                status, answer = await listener.ask(who, route.method, path, bodies.get(name))
                if role in route.roles or name in OPEN:
                    assert (status, reached) == (200, [name]), (name, who, answer)
                else:
                    assert (status, answer["code"], reached) == (403, 403, []), (name, who)
                    assert REFUSED.fullmatch(answer["msg"])
            reached.clear()
            status, _ = await listener.ask("", route.method, path, bodies.get(name))
            assert (status == 200) == (name in OPEN)
        for who in ("machine", *USERS):
            assert (await listener.ask(who, "GET", BASE + "/forgotten"))[0] == 403
    finally:
        await server.close()


def _example(name: str) -> Any:
    return {"file": {}, "datasets": {}, "kind": "flow", "role": "admin", "nodes": ["x", "y"]}.get(name, "x" * 12)


async def test_what_each_role_meets(listener: Listener, node: Node) -> None:
    for who, reads, trail, adds, decides in (
        ("ada", 200, 200, 400, 404),
        ("otto", 200, 403, 400, 403),
        ("eve", 200, 200, 403, 403),
    ):
        assert (await listener.name(who, "partner.list"))[0] == reads
        assert (await listener.name(who, "trail.export", {}))[0] == trail
        assert (await listener.name(who, "dataset.add", {"name": "x"}))[0] == adds
        assert (await listener.name(who, "audit.approve", {}, applicant="B", audit_id="x"))[0] == decides
        assert (await listener.name(who, "user.me"))[1]["name"] == who
    await node.trail.tend()
    entries = await node.trail.entries(first=1, last=500)
    refused = [each for each in entries if each.event == "access.refused"]
    assert {(each.actor, each.who) for each in refused} == {("admin", "otto"), ("admin", "eve")}


@pytest.mark.parametrize("path", ["/v1/admin/nothing", "/admin/v1/node", "/v1/admin", "//v1/admin/node"])
async def test_what_is_not_there(listener: Listener, path: str) -> None:
    assert (await listener.ask("", "GET", path))[0] == 401
    assert (await listener.ask("ada", "GET", path))[0] == 404
