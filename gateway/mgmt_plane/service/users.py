"""Users of the admin API and their tokens. Works inside transactions that the callers open.

A token is 256 random bits; its SHA-256 alone is kept, so whoever reads the database cannot use it. Passwords arrive
hashed (auth.passwords). The token of the token file is no user: it is the admin of whoever runs the machine.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.errors import Kind, ProtocolViolation, Refused
from gateway.model import AccessToken, User
from gateway.ports import Clock, Entropy, Tx
from specs.admin import Role

TOKEN_ID: Final = 12
"""Hex digits of a token's SHA-256 by which the audit trail names it."""
USERS: Final = 1000
TOKENS: Final = 20
"""Of one user at a time, sessions included; the oldest session makes room."""
DAYS: Final = 90
MOST_DAYS: Final = 366
SESSION_MS: Final = 3_600_000
_DAY_MS: Final = 86_400_000
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_LIKE_A_TOKEN_ID: Final = re.compile(rf"[0-9a-f]{{{TOKEN_ID}}}")
_LABEL: Final = 64


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, as the door has proven it. digest: of the token it came with, hex."""

    name: str
    role: Role
    digest: str
    named: bool = True
    """A user; the token file names nobody."""


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


class Users:
    """four_eyes: two persons must agree on something, so no user may make or take over another admin."""

    def __init__(self, *, clock: Clock, entropy: Entropy, four_eyes: bool = False) -> None:
        self._clock = clock
        self._entropy = entropy
        self._four_eyes = four_eyes

    # --- who is it --------------------------------------------------------------------------------------------------

    def known(self, tx: Tx, digest: str) -> Principal | None:
        """Whose token this is the digest of; None where it is nobody's, or no longer."""
        token = tx.get(AccessToken, digest)
        if token is None or token.expires <= self._clock.now_ms():
            return None
        user = tx.get(User, token.user)
        if user is None or user.closed:
            return None
        return Principal(user.name, user.role, digest)

    def all(self, tx: Tx) -> list[tuple[User, Sequence[AccessToken]]]:
        """Users by name with their tokens that hold."""
        now = self._clock.now_ms()
        return [
            (each, [token for token in tx.select(AccessToken, user=each.name) if token.expires > now])
            for each in tx.select(User, order="name")
        ]

    def get(self, tx: Tx, name: str) -> User:
        """Raises Refused(NOT_FOUND)."""
        user = tx.get(User, name)
        if user is None:
            raise Refused(f"there is no user {name[:64]!r}", kind=Kind.NOT_FOUND)
        return user

    # --- changing ---------------------------------------------------------------------------------------------------

    def add(self, tx: Tx, by: Principal, *, name: str, role: str) -> User:
        if not _NAME.fullmatch(name) or _LIKE_A_TOKEN_ID.fullmatch(name):
            raise ProtocolViolation("a name has 1 to 64 of a-z, 0-9, . _ @ - and is not 12 hexadecimal digits")
        if role not in set(Role):
            raise ProtocolViolation(f"role must be one of {', '.join(Role)}")
        if tx.count(User) >= USERS:
            raise Refused(f"there are {USERS} users", kind=Kind.TOO_MANY)
        if tx.get(User, name) is not None:
            raise Refused(f"there is, or was, a user {name!r}", kind=Kind.CONFLICT)
        now = self._clock.now_ms()
        user = User(name=name, role=Role(role), password="", closed=False, created=now, updated=now)
        self._check_hands(by, user)
        tx.insert(user)
        return user

    def close(self, tx: Tx, name: str) -> User:
        """Shut out for good. The name stays taken: the audit trail must not mean two people by it."""
        user = self.get(tx, name)
        for token in tx.select(AccessToken, user=name):
            tx.delete(token)
        return self._save(tx, user, replace(user, closed=True, password=""))

    def make_token(self, tx: Tx, by: Principal, *, name: str, days: int, label: str) -> tuple[str, AccessToken]:
        """A new token and its record."""
        user = self._own(tx, by, name)
        if not 1 <= days <= MOST_DAYS:
            raise ProtocolViolation(f"days must be 1 to {MOST_DAYS}")
        if len(label) > _LABEL or not label.isprintable():
            raise ProtocolViolation(f"label must be printable text of at most {_LABEL} characters")
        self._check_hands(by, user)
        return self._token(tx, user, life_ms=days * _DAY_MS, session=False, label=label)

    def log_in(self, tx: Tx, user: User) -> tuple[str, AccessToken]:
        """A session of a user whose password was right a moment ago; refused where it has been changed since."""
        if self.get(tx, user.name) != user:
            raise Refused("the user was changed meanwhile", kind=Kind.UNAUTHENTICATED)
        return self._token(tx, user, life_ms=SESSION_MS, session=True, label="password")

    def _token(self, tx: Tx, user: User, *, life_ms: int, session: bool, label: str) -> tuple[str, AccessToken]:
        now = self._clock.now_ms()
        held = list(tx.select(AccessToken, user=user.name))
        for old in [each for each in held if each.expires <= now]:
            tx.delete(old)
            held.remove(old)
        if len(held) >= TOKENS:
            room = next((each for each in held if each.session), None)
            if room is None:
                raise Refused(f"{user.name} has {TOKENS} tokens: revoke one", kind=Kind.TOO_MANY)
            tx.delete(room)
        text = base64.urlsafe_b64encode(self._entropy.token(32)).decode().rstrip("=")
        digest = digest_of(text)
        made = AccessToken(
            digest=digest,
            token_id=digest[:TOKEN_ID],
            user=user.name,
            session=session,
            label=label,
            expires=now + life_ms,
            created=now,
        )
        tx.insert(made)
        return text, made

    def revoke_token(self, tx: Tx, by: Principal, *, name: str, token_id: str) -> AccessToken:
        self._own(tx, by, name, closed=True)
        for token in tx.select(AccessToken, user=name):
            if token.token_id == token_id:
                tx.delete(token)
                return token
        raise Refused(f"{name} has no such token", kind=Kind.NOT_FOUND)

    def log_out(self, tx: Tx, by: Principal) -> None:
        token = tx.get(AccessToken, by.digest)
        if token is None:
            raise Refused("the token file's token is changed in its file", kind=Kind.CONFLICT)
        tx.delete(token)

    def set_password(self, tx: Tx, by: Principal, *, name: str, encoded: str, before: User) -> User:
        """encoded: PHC text, "" for none. before: the user as it was when `by` was found to know the old password."""
        user = self._own(tx, by, name)
        if user != before:
            raise Refused("the user was changed meanwhile", kind=Kind.CONFLICT)
        self._check_hands(by, user)
        for token in tx.select(AccessToken, user=name, session=True):
            tx.delete(token)
        return self._save(tx, user, replace(user, password=encoded))

    def _own(self, tx: Tx, by: Principal, name: str, *, closed: bool = False) -> User:
        if by.name != name and by.role is not Role.ADMIN:
            raise Refused("that is another user's", kind=Kind.FORBIDDEN)
        user = self.get(tx, name)
        if user.closed and not closed:
            raise Refused(f"{name} is shut out", kind=Kind.CONFLICT)
        return user

    def _check_hands(self, by: Principal, user: User) -> None:
        """Who could get hold of another admin's token would be both pairs of eyes."""
        if self._four_eyes and by.named and by.name != user.name and user.role is Role.ADMIN:
            raise Refused(
                "under four eyes, only the token file's token makes admins and gives them tokens", kind=Kind.FORBIDDEN
            )

    def _save(self, tx: Tx, old: User, new: User) -> User:
        made = replace(new, updated=max(self._clock.now_ms(), old.updated + 1))
        tx.replace(old, made)
        return made


def show_user(user: User, tokens: Sequence[AccessToken] = ()) -> dict[str, Any]:
    """A user without the hash of the password."""
    return {
        "name": user.name,
        "role": user.role.value,
        "password": bool(user.password),
        "closed": user.closed,
        "created": user.created,
        "tokens": [show_token(each) for each in tokens],
    }


def show_token(token: AccessToken) -> dict[str, Any]:
    return {
        "token_id": token.token_id,
        "session": token.session,
        "label": token.label,
        "expires": token.expires,
        "created": token.created,
    }
