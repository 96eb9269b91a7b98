"""Admin routes of pairing by invitation: make one, look at one, apply with one."""

from collections.abc import Callable, Mapping
from typing import Any

from gateway.auth.schemes import Signer
from gateway.errors import Kind, ProtocolViolation, Refused
from gateway.mgmt_plane.core import invite as invites
from gateway.mgmt_plane.core.jsontext import encode_object
from gateway.mgmt_plane.rest.admin_server import AdminHandler, AdminRoute
from gateway.model import Identity, Limits
from gateway.ports import Clock, Journal
from specs.admin import BASE

Answer = dict[str, Any]
Params = Mapping[str, str]
Body = Mapping[str, Any]


class InviteAdmin:
    """The handlers; `routes` lists them. apply: the handler of partners/apply, which does what an invitation asks."""

    def __init__(
        self,
        *,
        identity: Identity,
        signer: Callable[[], Signer],
        limits: Limits,
        clock: Clock,
        journal: Journal,
        apply: AdminHandler,
    ) -> None:
        self._identity = identity
        self._signer = signer
        self._limits = limits
        self._clock = clock
        self._journal = journal
        self._apply = apply

    def routes(self) -> list[AdminRoute]:
        return [
            AdminRoute("POST", BASE + "/invites", self.create),
            AdminRoute("POST", BASE + "/invites/check", self.check),
            AdminRoute("POST", BASE + "/invites/apply", self.apply),
        ]

    async def create(self, _params: Params, _query: Params, body: Body) -> Answer:
        """{days} -> {file, fingerprint, words, expires}: `file` is what is handed to the partner."""
        days = body.get("days", invites.DEFAULT_DAYS)
        if not isinstance(days, int) or isinstance(days, bool):
            raise ProtocolViolation("days must be a whole number")
        file = invites.make(self._identity, self._signer(), now=self._clock.now_ms(), days=days)
        made = file["invite"]
        self._journal.note("invite.created", expires=made["expires"])
        return {
            "file": file,
            "fingerprint": made["fingerprint"]["sha256"],
            "words": made["fingerprint"]["words"].split(),
            "expires": made["expires"],
        }

    async def check(self, _params: Params, _query: Params, body: Body) -> Answer:
        """{file} -> what it says and the fingerprint to compare; changes nothing."""
        return _show(self._read(body))

    async def apply(self, params: Params, query: Params, body: Body) -> Any:
        """{file, fingerprint, (expired_time), (description)} -> contract.

        fingerprint: the one that was compared out of band; it must be the invitation's.
        """
        found = self._read(body)
        fingerprint = body.get("fingerprint")
        if not isinstance(fingerprint, str) or not fingerprint:
            raise ProtocolViolation("fingerprint must be the one that was compared")
        asked = {
            "address": found.address,
            "node_id": found.node_id,
            "fingerprint": fingerprint,
            "ca_pem": found.ca_pem,
            **{name: body[name] for name in ("expired_time", "description") if name in body},
        }
        return await self._apply(params, query, asked)

    def _read(self, body: Body) -> invites.Invite:
        file = body.get("file")
        if not isinstance(file, Mapping):
            raise ProtocolViolation("file must be the invitation as an object")
        if len(encode_object(file)) > invites.MAX_BYTES:
            raise ProtocolViolation("the invitation is too large", kind=Kind.TOO_LARGE)
        found = invites.verify(file, now=self._clock.now_ms(), skew_ms=self._limits.clock_window_ms)
        if found.node_id == self._identity.node_id:
            raise Refused("the invitation is this node's own: give it to a partner", kind=Kind.CONFLICT)
        return found


def _show(found: invites.Invite) -> Answer:
    return {
        "node_id": found.node_id,
        "inst_id": found.inst_id,
        "name": found.name,
        "institution": found.institution,
        "address": found.address,
        "fingerprint": found.fingerprint,
        "words": list(found.words),
        "suites": list(found.suites),
        "created": found.created,
        "expires": found.expires,
    }
