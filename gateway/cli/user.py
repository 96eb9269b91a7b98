"""`interconn user`: who may use the admin API, their tokens and passwords."""

import getpass
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gateway.cli.call import TOKEN_VARIABLE, Call, Exit, UsageError
from gateway.cli.parser import Group
from gateway.cli.show import when
from gateway.errors import Kind, Refused
from specs.admin import Role

_LINE_BYTES: Final = 4096


def add(group: Group) -> None:
    new = group.command("add", adding, "make a user; give them a token next")
    new.add_argument("name", help="a-z, 0-9, . _ @ -; never given to anybody else afterwards")
    new.add_argument("--role", required=True, choices=[role.value for role in Role])
    group.command("list", listing, "users, what they are there for, and their tokens")
    token = group.command("token", giving, "make a token; it is shown this once")
    token.add_argument("name")
    token.add_argument("--days", type=int, help="how long it is good (90)")
    token.add_argument("--label", help="where it is used, in your words")
    _out(token)
    revoke = group.command("revoke", revoking, "void one token, or shut a user out for good")
    revoke.add_argument("name")
    revoke.add_argument("--token", dest="token_id", metavar="ID", help="only this one, see: interconn user list")
    revoke.add_argument("--yes", action="store_true", help="do not ask")
    passwd = group.command("passwd", setting, "set or remove a password, read from the terminal or standard input")
    passwd.add_argument("name")
    passwd.add_argument("--remove", action="store_true", help="no password: tokens only")
    login = group.command("login", entering, "a token for an hour, for a password")
    login.add_argument("name")
    _out(login)
    group.command("logout", leaving, f"void the token of --token-file (or {TOKEN_VARIABLE})")
    group.command("me", telling, "whose token this is")


def _out(parser: Any) -> None:
    parser.add_argument(
        "--out", dest="out_file", type=Path, metavar="FILE", help="a new file that only you can read, else the screen"
    )


def adding(call: Call) -> Exit:
    made = call.client().post("users", name=call.name, role=call.role)
    words = f"{made['name']}: {made['role']}; next: interconn user token {made['name']}"
    call.out.value(made, lambda: call.out.line(words))
    return Exit.OK


def listing(call: Call) -> Exit:
    users = call.client().get("users")
    rows = [
        [
            user["name"],
            "shut out" if user["closed"] else user["role"],
            "yes" if user["password"] else "no",
            token.get("token_id", ""),
            token.get("label", ""),
            when(token.get("expires")),
        ]
        for user in users
        for token in user["tokens"] or [{}]
    ]
    columns = ("user", "role", "password", "token", "label", "good until")
    call.out.value(users, lambda: call.out.table(columns, rows, empty="No users yet: the token file is the only key."))
    return Exit.OK


def _free(call: Call) -> None:
    """Before anything is made: a token that cannot be written down is lost."""
    if call.out_file is not None and call.out_file.exists():
        raise Refused(f"{call.out_file} exists", kind=Kind.CONFLICT)


def _told(call: Call, made: Mapping[str, Any]) -> Exit:
    shown = dict(made)
    if call.out_file is not None:
        text = shown.pop("token") + "\n"
        with os.fdopen(os.open(call.out_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        shown["file"] = str(call.out_file)
        words = f"Token {made['token_id']} of {made['user']}, good until {when(made['expires'])}: {call.out_file}"
        call.out.value(shown, lambda: call.out.line(words))
        return Exit.OK
    call.out.value(shown, lambda: call.out.line(made["token"]))
    return Exit.OK


def giving(call: Call) -> Exit:
    _free(call)
    return _told(call, call.client().post("users", call.name, "tokens", days=call.days, label=call.label))


def revoking(call: Call) -> Exit:
    client = call.client()
    if call.token_id is not None:
        gone = client.post("users", call.name, "tokens", call.token_id, "revoke")
        call.out.value(gone, lambda: call.out.line(f"{call.name}: token {gone['token_id']} is void."))
        return Exit.OK
    if not call.agree(f"Shut {call.name} out for good?", otherwise="--yes, or --token ID"):
        call.out.line("Nothing was changed.")
        return Exit.FAILED
    shut = client.post("users", call.name, "close")
    call.out.value(shut, lambda: call.out.line(f"{call.name}: shut out."))
    return Exit.OK


def _password(prompt: str) -> str:
    if sys.stdin.isatty():
        return getpass.getpass(f"{prompt}: ")
    text = sys.stdin.readline(_LINE_BYTES)
    if not text:
        raise UsageError(f"{prompt}: nothing on standard input")
    return text.rstrip("\r\n")


def setting(call: Call) -> Exit:
    client = call.client()
    me = client.get("me")
    mine = me["name"] == call.name
    body: dict[str, Any] = {"password": None}
    if mine and me["password"]:
        body["current"] = _password("Current password")
    if not call.remove:
        body["password"] = _password("New password")
        if sys.stdin.isatty() and _password("Again") != body["password"]:
            raise UsageError("the two differ")
    changed = client.post_json("users", call.name, "password", body=body)
    words = f"{call.name}: password {'set' if changed['password'] else 'removed'}; all sessions have ended."
    call.out.value(changed, lambda: call.out.line(words))
    return Exit.OK


def entering(call: Call) -> Exit:
    _free(call)
    password = _password("Password")
    return _told(call, call.anonymous().post("login", name=call.name, password=password))


def leaving(call: Call) -> Exit:
    if call.token_file is None and not os.environ.get(TOKEN_VARIABLE):
        raise UsageError(f"which token? --token-file FILE or {TOKEN_VARIABLE}")
    gone = call.client().post("logout")
    call.out.value(gone, lambda: call.out.line(f"{gone['name']}: that token is void."))
    return Exit.OK


def telling(call: Call) -> Exit:
    me = call.client().get("me")
    whose = "" if me["named"] else " (the token file)"
    call.out.value(me, lambda: call.out.line(f"{me['name']}: {me['role']}{whose}"))
    return Exit.OK
