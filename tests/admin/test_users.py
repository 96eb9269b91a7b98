"""Users, tokens and passwords over the admin listener."""

import asyncio
import json

import pytest

from gateway.auth.passwords import check_password, hashed, matches
from gateway.errors import Kind, ProtocolViolation
from gateway.mgmt_plane.rest import admin_users
from gateway.mgmt_plane.service.users import SESSION_MS, TOKENS
from gateway.model import AccessToken, User
from specs.admin import Role
from tests.admin.world import TOKEN, Listener, listening
from tests.mgmt.world import Node

GOOD = "correct horse battery"


async def everything(node: Node) -> str:
    """All that the store, the journal and the trail hold."""
    await node.trail.tend()
    rows = await node.run(lambda tx: [*map(repr, tx.select(User)), *map(repr, tx.select(AccessToken))])
    kept = await node.run(lambda tx: [each.digest for each in tx.select(AccessToken)])
    trail = [each.facts for each in await node.trail.entries(first=1, last=500)]
    return json.dumps([rows, kept, trail, node.journal.events])


async def test_a_token_is_random_kept_as_digest_and_ends(listener: Listener, node: Node) -> None:
    status, made = await listener.name("ada", "user.token", {"days": 2, "label": "laptop"}, name="otto")
    assert status == 200
    assert len(made["token"]) >= 43
    assert made["expires"] == node.clock.ms + 2 * 86_400_000
    assert (await listener.ask(made["token"], "GET", "/v1/admin/me"))[1]["name"] == "otto"
    assert made["token"] not in await everything(node)
    _, users = await listener.name("eve", "user.list")
    assert {token["label"] for user in users if user["name"] == "otto" for token in user["tokens"]} == {"", "laptop"}
    assert "password" in users[0]
    assert users[0]["password"] is False
    node.clock.ms += 2 * 86_400_000
    assert (await listener.ask(made["token"], "GET", "/v1/admin/me"))[0] == 401
    assert (await listener.name("otto", "user.me"))[0] == 200


async def test_revoking_and_shutting_out(listener: Listener, node: Node) -> None:
    _, made = await listener.name("otto", "user.token", {}, name="otto")
    assert (await listener.name("otto", "user.token.revoke", {}, name="otto", token_id=made["token_id"]))[0] == 200
    assert (await listener.ask(made["token"], "GET", "/v1/admin/me"))[0] == 401
    assert (await listener.name("otto", "user.token.revoke", {}, name="otto", token_id=made["token_id"]))[0] == 404
    assert (await listener.name("ada", "user.close", {}, name="otto"))[1]["closed"] is True
    assert (await listener.name("otto", "user.me"))[0] == 401
    # The name stays taken, and gets no key any more.
    assert (await listener.name("ada", "user.add", {"name": "otto", "role": "admin"}))[0] == 409
    assert (await listener.name("ada", "user.token", {}, name="otto"))[0] == 409
    assert (await listener.name("ada", "user.password", {"password": GOOD}, name="otto"))[0] == 409
    entries = await node.trail.entries(first=1, last=500)
    assert [(each.event, each.who) for each in entries[-3:]] == [
        ("token.revoked", "otto"),
        ("token.revoked", "ada"),
        ("user.changed", "ada"),
    ]


async def test_who_is_not_admin_touches_only_their_own(listener: Listener) -> None:
    for name, body, more in (
        ("user.token", {}, {}),
        ("user.password", {"password": GOOD}, {}),
        ("user.token.revoke", {}, {"token_id": "x"}),
    ):
        for who in ("otto", "eve"):
            assert (await listener.name(who, name, body, name="ada", **more))[0] == 403
    for number in range(TOKENS - 1):
        assert (await listener.name("otto", "user.token", {}, name="otto"))[0] == 200, number
    status, answer = await listener.name("otto", "user.token", {}, name="otto")
    assert (status, answer["code"]) == (429, 429)


@pytest.mark.parametrize("name", ["", "A", "a b", "ü", "-a", "a" * 65, "0123456789ab", "a\n", "../x"])
async def test_names_that_are_none(listener: Listener, name: str) -> None:
    status, answer = await listener.name("ada", "user.add", {"name": name, "role": "admin"})
    assert (status, answer["code"]) == (400, 400)


async def test_a_password_gives_a_short_token(listener: Listener, node: Node) -> None:
    login = {"name": "otto", "password": GOOD}
    assert (await listener.name("", "user.login", login))[0] == 403
    assert (await listener.name("otto", "user.password", {"password": "short"}, name="otto"))[0] == 400
    assert (await listener.name("otto", "user.password", {"password": GOOD}, name="otto"))[1]["password"] is True
    status, made = await listener.name("", "user.login", login)
    assert status == 200
    assert made["expires"] == node.clock.ms + SESSION_MS
    assert (await listener.ask(made["token"], "GET", "/v1/admin/me"))[1]["name"] == "otto"
    assert (await listener.name("", "user.login", {**login, "password": GOOD + "!"}))[0] == 403
    # Whoever finds an open terminal cannot take the account over.
    status, _ = await listener.name("otto", "user.password", {"password": GOOD + "2"}, name="otto")
    assert status == 403
    changed = {"password": GOOD + "2", "current": GOOD}
    assert (await listener.name("otto", "user.password", changed, name="otto"))[0] == 200
    assert (await listener.ask(made["token"], "GET", "/v1/admin/me"))[0] == 401
    seen = await everything(node)
    assert GOOD not in seen
    user = await node.run(lambda tx: tx.get(User, "otto"))
    assert user is not None
    assert user.password.startswith("$argon2id$v=19$m=65536,t=3,p=1$")
    assert user.password not in seen
    _, made = await listener.name("", "user.login", {**login, "password": GOOD + "2"})
    node.clock.ms += SESSION_MS
    assert (await listener.ask(made["token"], "GET", "/v1/admin/me"))[0] == 401


async def test_guessing_is_slow_and_told(listener: Listener, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.setattr(admin_users, "matches", lambda text, encoded: tried.append(text) or False)
    for name in ("otto", "nobody"):
        codes = [
            (await listener.name("", "user.login", {"name": name, "password": f"guess number {n}"}))[1]["code"]
            for n in range(12)
        ]
        assert codes == [401] * 10 + [429] * 2
    assert len(tried) == 20  # as much work for a name that is none
    await node.trail.tend()
    entries = [each for each in await node.trail.entries(first=1, last=500) if each.event == "auth.failed"]
    assert {(each.actor, each.who, each.facts["kind"], each.facts["count"]) for each in entries} == {
        ("claimed", name, kind, count)
        for name in ("otto", "nobody")
        for kind, count in (("unauthenticated", 10), ("too_many", 2))
    }


async def test_few_passwords_at_a_time(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading
    import time

    running, most, lock = 0, 0, threading.Lock()

    def slow(_text: str, _encoded: str) -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        with lock:
            running -= 1
        return False

    monkeypatch.setattr(admin_users, "matches", slow)
    logins = [
        listener.name("", "user.login", {"name": f"user{n}", "password": "x" * 12})
        for n in range(admin_users.WAITING + 6)
    ]
    codes = [answer["code"] for _, answer in await asyncio.gather(*logins)]
    assert most <= admin_users.AT_ONCE
    assert set(codes) == {401, 101}


async def test_wrong_tokens_are_counted_and_never_keep_a_right_one_out(listener: Listener, node: Node) -> None:
    codes = [(await listener.ask(f"wrong-{n}", "GET", "/v1/admin/me"))[0] for n in range(40)]
    assert codes == [401] * 30 + [429] * 10
    assert (await listener.name("ada", "user.me"))[0] == 200
    assert (await listener.ask(TOKEN, "GET", "/v1/admin/me"))[1] == {
        "name": (await listener.name("machine", "user.me"))[1]["name"],
        "role": "admin",
        "named": False,
        "password": False,
    }
    await node.trail.tend()
    entries = [each for each in await node.trail.entries(first=1, last=500) if each.event == "auth.failed"]
    assert sorted((each.facts["kind"], each.facts["count"]) for each in entries) == [
        ("too_many", 10),
        ("unauthenticated", 30),
    ]


async def test_logging_out(listener: Listener) -> None:
    assert (await listener.name("eve", "user.logout", {}))[1] == {"name": "eve"}
    assert (await listener.name("eve", "user.me"))[0] == 401
    assert (await listener.name("machine", "user.logout", {}))[0] == 409


async def test_under_four_eyes_no_user_makes_another_admin(node: Node) -> None:
    async with listening(node, four_eyes=True) as listener:
        await listener.make("ada", Role.ADMIN)
        await listener.make("bob", Role.ADMIN)
        await listener.make("otto", Role.OPERATOR)
        assert (await listener.name("ada", "user.add", {"name": "ada2", "role": "admin"}))[0] == 403
        assert (await listener.name("ada", "user.token", {}, name="bob"))[0] == 403
        assert (await listener.name("ada", "user.password", {"password": GOOD}, name="bob"))[0] == 403
        assert (await listener.name("ada", "user.token", {}, name="ada"))[0] == 200
        assert (await listener.name("ada", "user.token", {}, name="otto"))[0] == 200


async def test_hashing_at_the_same_time_ends() -> None:
    """More than one lane deadlocks in OpenSSL."""
    made = await asyncio.wait_for(
        asyncio.gather(*(asyncio.to_thread(hashed, GOOD, salt=bytes(16)) for _ in range(3))), timeout=60
    )
    assert len(set(made)) == 1


def test_passwords() -> None:
    encoded = hashed(check_password("Passw\u00f6rter!!"), salt=b"0" * 16)
    assert matches(check_password("Passwo\u0308rter!!"), encoded)  # typed as o and dots
    assert not matches(check_password("Passworter!!!"), encoded)
    for wrong in ("short", "x" * 1025, None, 3):
        with pytest.raises(ProtocolViolation) as caught:
            check_password(wrong)
        assert caught.value.kind is Kind.MALFORMED
