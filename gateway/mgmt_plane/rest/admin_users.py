"""Admin routes of users: make them, give and revoke tokens, log in with a password; and what the door asks about them.

Passwords are hashed in threads, few at a time; wrong ones are counted per user and per address before anything is
hashed. A wrong token never keeps a right one out: only what is refused is counted.
"""

import asyncio
import base64
from collections.abc import Mapping
from typing import Any, Final

from gateway.auth.passwords import SALT_BYTES, check_password, hashed, matches
from gateway.errors import Kind, ProtocolViolation, Refused
from gateway.mgmt_plane.rest.admin_server import AdminRoute, PersonalRoute
from gateway.mgmt_plane.rest.edge import RateLimit
from gateway.mgmt_plane.service.trail import Actor, acting
from gateway.mgmt_plane.service.users import DAYS, Principal, Users, show_token, show_user
from gateway.model import User
from gateway.ports import Clock, Entropy, Journal, Store, Tx
from specs.admin import BASE, Role

FAILURES_A_MINUTE: Final = 30
"""Wrong tokens of one address."""
PASSWORDS_A_MINUTE: Final = 10
"""Attempts for one user; right ones count too."""
AT_ONCE: Final = 2
"""Passwords hashed at a time: 64 MiB each."""
WAITING: Final = 8
_NAMES: Final = 10_000

Params = Mapping[str, str]
Body = Mapping[str, Any]


class UserGuard:
    """What the door asks (admin_server.Guard)."""

    def __init__(self, *, users: Users, store: Store, clock: Clock) -> None:
        self._users = users
        self._store = store
        self._clock = clock
        self._rate = RateLimit(per_minute=FAILURES_A_MINUTE, addresses=_NAMES, what="refused calls")

    async def known(self, digest: str) -> Principal | None:
        return await self._store.run(lambda tx: self._users.known(tx, digest))

    def failed(self, address: str) -> None:
        self._rate.count(address, now=self._clock.monotonic())


class UserAdmin:
    """The handlers; `routes` lists them."""

    def __init__(self, *, users: Users, store: Store, clock: Clock, entropy: Entropy, journal: Journal) -> None:
        self._users = users
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._journal = journal
        self._tries = RateLimit(per_minute=PASSWORDS_A_MINUTE, addresses=_NAMES, what="password attempts")
        self._hashing = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        # As long to try as a real one: how long a refusal takes must not tell whether the user exists.
        self._nobodys = ""

    def routes(self) -> list[AdminRoute]:
        users = BASE + "/users"
        return [
            AdminRoute("GET", users, self.list),
            PersonalRoute("POST", users, self.add),
            AdminRoute("POST", users + "/{name}/close", self.close),
            PersonalRoute("POST", users + "/{name}/tokens", self.token),
            PersonalRoute("POST", users + "/{name}/tokens/{token_id}/revoke", self.revoke),
            PersonalRoute("POST", users + "/{name}/password", self.password),
            PersonalRoute("GET", BASE + "/me", self.me),
            PersonalRoute("POST", BASE + "/logout", self.logout),
            AdminRoute("POST", BASE + "/login", self.login),
        ]

    async def list(self, _params: Params, _query: Params, _body: Body) -> Any:
        """Every user, also those shut out, with the tokens that hold; no token and no hash of a password."""
        return [show_user(user, tokens) for user, tokens in await self._store.run(self._users.all)]

    async def me(self, by: Principal, _params: Params, _query: Params, _body: Body) -> Any:
        """Whose token this is. named: false for the token file's. password: one is set."""
        user = await self._store.run(lambda tx: tx.get(User, by.name))
        password = user is not None and bool(user.password)
        return {"name": by.name, "role": by.role.value, "named": by.named, "password": password}

    async def add(self, by: Principal, _params: Params, _query: Params, body: Body) -> Any:
        """{name, role} -> user."""
        name, role = body["name"], body["role"]
        return show_user(await self._store.run(lambda tx: self._users.add(tx, by, name=name, role=role)))

    async def close(self, params: Params, _query: Params, _body: Body) -> Any:
        return show_user(await self._store.run(lambda tx: self._users.close(tx, params["name"])))

    async def token(self, by: Principal, params: Params, _query: Params, body: Body) -> Any:
        """{(days), (label)} -> {token, token_id, expires, ...}: the only time that the token is shown."""
        days, label = body.get("days", DAYS), body.get("label", "")
        text, made = await self._store.run(
            lambda tx: self._users.make_token(tx, by, name=params["name"], days=days, label=label)
        )
        return {"token": text, "user": made.user, **show_token(made)}

    async def revoke(self, by: Principal, params: Params, _query: Params, _body: Body) -> Any:
        gone = await self._store.run(
            lambda tx: self._users.revoke_token(tx, by, name=params["name"], token_id=params["token_id"])
        )
        return {"user": gone.user, **show_token(gone)}

    async def logout(self, by: Principal, _params: Params, _query: Params, _body: Body) -> Any:
        await self._store.run(lambda tx: self._users.log_out(tx, by))
        return {"name": by.name}

    # --- passwords --------------------------------------------------------------------------------------------------

    async def password(self, by: Principal, params: Params, _query: Params, body: Body) -> Any:
        """{password: text or null, (current)} -> user. current: needed to change one's own."""
        name, text, current = params["name"], body.get("password"), body.get("current")
        if by.name != name and by.role is not Role.ADMIN:
            raise Refused("that is another user's", kind=Kind.FORBIDDEN)
        wanted = None if text is None else check_password(text)
        user = await self._store.run(lambda tx: self._users.get(tx, name))
        if by.name == name and user.password and not await self._right(user, current):
            raise Refused("the current password is missing or wrong", kind=Kind.FORBIDDEN)
        encoded = "" if wanted is None else await self._hash(wanted)
        changed = await self._store.run(
            lambda tx: self._users.set_password(tx, by, name=name, encoded=encoded, before=user)
        )
        return show_user(changed)

    async def login(self, _params: Params, _query: Params, body: Body) -> Any:
        """{name, password} -> {token, expires, ...}, good for an hour."""
        name, password = body["name"], body["password"]
        try:
            user = await self._store.run(lambda tx: tx.get(User, name))
            if user is not None and user.closed:
                user = None
            right = await self._right(user, password, name=name)
        except (Refused, ProtocolViolation) as e:
            self._failed(name, e.kind)
            raise
        if user is None or not right:
            self._failed(name, Kind.UNAUTHENTICATED)
            raise Refused("user or password is wrong", kind=Kind.UNAUTHENTICATED)

        def work(tx: Tx) -> Any:
            return self._users.log_in(tx, user)

        with acting(Actor("admin", user.name)):
            text, made = await self._store.run(work)
        return {"token": text, "user": made.user, **show_token(made)}

    def _failed(self, name: str, kind: Kind) -> None:
        self._journal.note("admin.refused", path=BASE + "/login", kind=kind.value, claimed=_shown(name))

    async def _right(self, user: User | None, password: object, *, name: str = "") -> bool:
        """Whether it is the user's password. Counted before it is hashed: raises Refused(TOO_MANY, OVERLOADED)."""
        self._tries.count(user.name if user is not None else name, now=self._clock.monotonic())
        try:
            text = check_password(password)
        except ProtocolViolation:
            return False
        if not self._nobodys:
            self._nobodys = await self._hash(base64.b64encode(self._entropy.token(32)).decode())
        encoded = user.password if user is not None and user.password else self._nobodys
        return await self._bounded(matches, text, encoded) and user is not None and bool(user.password)

    async def _hash(self, password: str) -> str:
        salt = self._entropy.token(SALT_BYTES)
        made: str = await self._bounded(lambda text, _: hashed(text, salt=salt), password, "")
        return made

    async def _bounded(self, work: Any, text: str, encoded: str) -> Any:
        if self._waiting >= WAITING:
            raise Refused("too many passwords at a time", kind=Kind.OVERLOADED)
        self._waiting += 1
        try:
            async with self._hashing:
                return await asyncio.to_thread(work, text, encoded)
        finally:
            self._waiting -= 1


def _shown(name: str) -> str:
    return "".join(filter(str.isprintable, name))[:64]
