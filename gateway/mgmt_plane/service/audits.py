"""Approvals of datasets, projects, flows, jobs and models: one implementation for all kinds (1-management d.2).

Works inside transactions that the callers open. An audit is known by (applicant, audit_id) (A-21); only the stored
counterpart may touch it (A-20). What an approval opens is done here for datasets (grants); others listen.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gateway.errors import CallerError, Kind, PeerError, ProtocolViolation, Refused
from gateway.mgmt_plane.core.acl import check_permit
from gateway.mgmt_plane.core.approval import Effect, Event, decision, step
from gateway.mgmt_plane.core.messages import SUBJECT, WITH_CONTRACT, audit_confirm_body, check, read_permit
from gateway.mgmt_plane.core.profile import profile
from gateway.mgmt_plane.service.grants import RECORDED, Grants
from gateway.mgmt_plane.service.outgoing import Outgoing
from gateway.mgmt_plane.service.partners import Partners
from gateway.model import (
    Audit,
    AuditId,
    CallState,
    Contract,
    Dataset,
    Direction,
    Identity,
    Json,
    Limits,
    NodeId,
    OutCall,
    Project,
    TraceId,
)
from gateway.ports import Caller, Clock, Entropy, PeerReply, Tx
from specs.states import ApprovalState, AuditKind

Listener = Callable[[Tx, Audit], None]


def subject_of(key: str) -> str:
    """How an audit's calls are marked in the outbox."""
    return f"audit:{key}"


class Audits:
    """All audits of this node, in both directions."""

    def __init__(
        self,
        *,
        identity: Identity,
        partners: Partners,
        grants: Grants,
        outgoing: Outgoing,
        limits: Limits,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._identity = identity
        self._partners = partners
        self._grants = grants
        self._outgoing = outgoing
        self._limits = limits
        self._clock = clock
        self._entropy = entropy
        self._listeners: dict[AuditKind, list[Listener]] = {}
        self._most: dict[tuple[NodeId, AuditKind], int] = {}
        """How many applications of a kind a partner has filed at most: counted once, then each new one added. What is
        undone or forgotten later leaves it too high, never too low, so it is counted anew before anybody is refused."""
        partners.on_closed(self._contract_closed)

    def listen(self, kind: AuditKind, listener: Listener) -> None:
        """`listener` is called inside the transaction after a partner's application and after every change of state."""
        self._listeners.setdefault(kind, []).append(listener)

    # --- reading ----------------------------------------------------------------------------------------------------

    def get(self, tx: Tx, applicant: str, audit_id: str) -> Audit:
        """Raises Refused(NOT_FOUND)."""
        return self._by_key(tx, f"{applicant}/{audit_id}")

    def find(self, tx: Tx, *, kind: AuditKind, subject: str, direction: Direction | None = None) -> Sequence[Audit]:
        """The audits about `subject`, oldest first."""
        if direction is None:
            return tx.select(Audit, kind=kind, subject=subject)
        return tx.select(Audit, kind=kind, subject=subject, direction=direction)

    def _by_key(self, tx: Tx, key: str) -> Audit:
        audit = tx.get(Audit, key)
        if audit is None:
            raise Refused(f"audit {key} is not known", kind=Kind.NOT_FOUND, detail="audit_id")
        return audit

    def of_caller(self, tx: Tx, caller: Caller, kind: AuditKind, audit_id: str) -> Audit:
        """The audit a caller names: its own application or ours to it. Another node's is as good as unknown (M-033)."""
        for applicant in (caller.node_id, self._identity.node_id):
            audit = tx.get(Audit, f"{applicant}/{audit_id}")
            if audit is not None and audit.kind is kind and audit.peer_node_id == caller.node_id:
                return audit
        raise Refused(
            f"{kind} audit {audit_id} of {caller.node_id} is not known", kind=Kind.NOT_FOUND, detail="audit_id"
        )

    # --- we apply ---------------------------------------------------------------------------------------------------

    def apply(
        self, tx: Tx, *, kind: AuditKind, contract: Contract, subject: str, body: Json, trace_id: TraceId
    ) -> Audit:
        """Ask the partner of `contract`; body is the apply body, to which audit_id and what names it are added."""
        audit_id = AuditId(f"au-{self._entropy.token(16).hex()}")
        made: dict[str, Any] = {**body, "audit_id": audit_id, SUBJECT[kind]: subject}
        if kind in WITH_CONTRACT:
            made["contract_id"] = contract.contract_id
        route = f"{kind.value}.audit.apply"
        try:
            made = dict(check(route, made))  # under the names that we send
        except ProtocolViolation as e:
            raise CallerError(f"our own {route}: {e}", kind=Kind.MALFORMED, detail=str(e)) from e
        now = self._clock.now_ms()
        audit = Audit(
            applicant=self._identity.node_id,
            audit_id=audit_id,
            kind=kind,
            direction=Direction.OUT,
            peer_node_id=contract.peer_node_id,
            contract_id=contract.contract_id,
            status=step(None, Event.APPLY)[0],
            subject=subject,
            body=made,
            permit=None,
            created=now,
            updated=now,
        )
        tx.insert(audit)
        self._send(tx, contract, audit, "apply", body=made, trace_id=trace_id)
        return audit

    def confirmed(self, tx: Tx, caller: Caller, kind: AuditKind, body: Mapping[str, Any]) -> Audit:
        """The partner decided on our application (M-046, M-051, M-064)."""
        old = tx.get(Audit, f"{self._identity.node_id}/{body['audit_id']}")
        if old is None or old.kind is not kind or old.peer_node_id != caller.node_id:
            raise Refused("no such application of ours", kind=Kind.NOT_FOUND, detail="audit_id")
        event = decision(body["status"])
        state, effects = step(old.status, event)
        permit: Json | None = None
        if event is Event.APPROVE:
            permit, bare = read_permit(body.get("resource_permit"))
            if permit is not None and not bare:
                check_permit(permit, resource_id=old.subject, holder=caller.node_id, user=self._identity.node_id)
        if state is old.status:
            if permit != old.permit:
                raise Refused("confirmed before with another permit", kind=Kind.CONFLICT)
            return old
        return self._move(tx, old, replace(old, status=state, permit=permit), effects)

    def call_ended(self, tx: Tx, call: OutCall, answer: PeerReply | PeerError | None = None) -> None:
        """A call of the outbox is over (runtime.outbox.OnResult).

        Where the partner refused an application of ours for good, nobody will ever confirm it: it counts as rejected.
        """
        if call.state is CallState.DEAD and call.route == "node.contract.confirm" and isinstance(answer, PeerError):
            self._partners.confirm_refused(tx, call, answer)
        if call.state is not CallState.DEAD or not call.route.endswith(".audit.apply"):
            return
        audit = tx.get(Audit, call.subject.removeprefix("audit:"))
        if audit is not None and audit.status is ApprovalState.APPLIED:
            state, effects = step(audit.status, Event.REJECT)
            self._move(tx, audit, replace(audit, status=state), effects)

    def reported(self, tx: Tx, key: str, status: str) -> Audit:
        """What audit/query says of an application whose confirm never came (c.1: fallback)."""
        old = self._by_key(tx, key)
        if old.direction is not Direction.OUT or old.status is not ApprovalState.APPLIED:
            return old
        events = {
            ApprovalState.REJECTED.value: Event.REJECT,
            ApprovalState.TERMINATED.value: Event.TERMINATE,
            # The permit of a dataset is in confirm alone, which the holder re-sends when we apply again.
            ApprovalState.APPROVED.value: None if old.kind is AuditKind.DATASET else Event.APPROVE,
        }
        event = events.get(status)
        if event is None:
            return old
        state, effects = step(old.status, event)
        return self._move(tx, old, replace(old, status=state), effects)

    # --- a partner applies ------------------------------------------------------------------------------------------

    def receive_apply(self, tx: Tx, caller: Caller, kind: AuditKind, body: Mapping[str, Any]) -> Audit:
        """A partner's application; the same again changes nothing, and is answered again if it was decided (A-08)."""
        if caller.contract is None:
            raise CallerError("an application needs a contract")
        contract = caller.contract
        if kind in WITH_CONTRACT:
            contract = self._partners.valid_of_caller(tx, caller, body["contract_id"])
        known = tx.get(Audit, f"{caller.node_id}/{body['audit_id']}")
        if known is not None:
            return self._applied_again(tx, contract, known, kind=kind, body=body, trace_id=caller.trace_id)
        self._check_application(tx, caller, kind, body)
        now = self._clock.now_ms()
        audit = Audit(
            applicant=caller.node_id,
            audit_id=AuditId(body["audit_id"]),
            kind=kind,
            direction=Direction.IN,
            peer_node_id=caller.node_id,
            contract_id=contract.contract_id,
            status=step(None, Event.APPLY)[0],
            subject=body[SUBJECT[kind]],
            body=body,
            permit=None,
            created=now,
            updated=now,
        )
        tx.insert(audit)
        self._tell(tx, audit)
        return audit

    def _applied_again(
        self,
        tx: Tx,
        contract: Contract,
        known: Audit,
        *,
        kind: AuditKind,
        body: Mapping[str, Any],
        trace_id: TraceId,
    ) -> Audit:
        if known.kind is not kind or _text(known.body) != _text(body):
            raise Refused("this audit_id was used for something else", kind=Kind.CONFLICT, detail="audit_id")
        _, effects = step(known.status, Event.APPLY)
        pending = tx.select(OutCall, subject=subject_of(known.key()), state=CallState.DUE)
        if Effect.ANSWER_AGAIN in effects and not any(each.route.endswith(".confirm") for each in pending):
            self._send(tx, contract, known, "confirm", body=audit_confirm_body(known), trace_id=trace_id)
        return known

    def _check_application(self, tx: Tx, caller: Caller, kind: AuditKind, body: Mapping[str, Any]) -> None:
        if tx.get(Audit, f"{self._identity.node_id}/{body['audit_id']}") is not None:
            # terminate carries nothing but the id: the two could not be told apart.
            raise Refused("this audit_id is one of our own", kind=Kind.CONFLICT, detail="audit_id")
        waiting = tx.count(Audit, peer_node_id=caller.node_id, direction=Direction.IN, status=ApprovalState.APPLIED)
        if waiting >= self._limits.open_audits:
            raise Refused("too many applications wait for a decision", kind=Kind.TOO_MANY, detail="")
        self._count_in(tx, caller.node_id, kind)
        if kind is AuditKind.DATASET:
            self._check_dataset(tx, body["dataset_id"])
            limit = body.get("time_limit")
            if limit is not None and limit <= self._clock.now_ms():
                raise ProtocolViolation("time_limit must lie in the future (milliseconds)")
        elif kind is AuditKind.PROJECT:
            for each in body.get("datasets", ()):
                self._check_dataset(tx, each["dataset_id"])
            project = tx.get(Project, body["project_id"])
            if project is not None and project.initiator != caller.node_id:
                raise Refused("project_id is in use", kind=Kind.CONFLICT, detail="project_id")
        elif kind is AuditKind.JOB:
            initiator = body["conf"].get("initiator")
            if not isinstance(initiator, Mapping) or initiator.get("node_id") != caller.node_id:
                raise Refused("only the initiator asks for a job", kind=Kind.FORBIDDEN, detail="conf.initiator.node_id")

    def _count_in(self, tx: Tx, node: NodeId, kind: AuditKind) -> None:
        """One application more; raises Refused(TOO_MANY). This process alone writes the database, one at a time."""
        most, allowed = self._most.get((node, kind)), self._limits.audits_per_kind
        if most is None or most >= allowed:
            most = tx.count(Audit, peer_node_id=node, direction=Direction.IN, kind=kind)
            self._most[node, kind] = most
        if most >= allowed:
            raise Refused(f"{most} {kind} applications of {node}", kind=Kind.TOO_MANY, detail="")
        self._most[node, kind] = most + 1

    def _check_dataset(self, tx: Tx, dataset_id: str) -> None:
        if tx.get(Dataset, dataset_id) is None:
            raise Refused(f"dataset {dataset_id} is not known here", kind=Kind.NOT_FOUND, detail="dataset_id")

    def decide(
        self,
        tx: Tx,
        audit_key: str,
        *,
        approve: bool,
        permit: Json | None = None,
        columns: Sequence[str] = (),
        time_limit: int | None = None,
        times_limit: int | None = None,
        trace_id: TraceId | None = None,
    ) -> Audit:
        """Our answer to a partner's application, sent as confirm through the outbox. The same again changes nothing.

        For a dataset a grant is made and its permit goes along; columns and limits restrict it, limits default to those
        asked for. For the other kinds `permit` is passed on as it is.
        """
        old = self._by_key(tx, audit_key)
        if old.direction is not Direction.IN:
            raise Refused("the partner decides on this", kind=Kind.ILLEGAL_TRANSITION)
        state, effects = step(old.status, Event.APPROVE if approve else Event.REJECT)
        if state is old.status:
            return old
        contract = self._partners.contract_with(tx, old.peer_node_id)
        if approve and old.kind is AuditKind.DATASET:
            permit = self._grants.issue(
                tx,
                old,
                columns=columns,
                time_limit=time_limit if time_limit is not None else old.body.get("time_limit"),
                times_limit=times_limit if times_limit is not None else old.body.get("times_limit"),
            )
        new = self._move(tx, old, replace(old, status=state, permit=permit if approve else None), effects)
        self._send(tx, contract, new, "confirm", body=audit_confirm_body(new), trace_id=trace_id)
        return new

    def record_grant(
        self,
        tx: Tx,
        *,
        user: NodeId,
        dataset_id: str,
        scope: Json,
        columns: Sequence[str],
        time_limit: int | None,
        times_limit: int | None,
    ) -> Audit:
        """A grant to a partner without a management layer: it cannot apply, and gets no token to show.

        Kept as an approved application, so that it is listed and revoked like any other. Raises Refused(CONFLICT) for a
        partner that can apply.
        """
        contract = self._partners.contract_with(tx, user)
        if profile(contract.profile).managed:
            raise Refused(f"{user} can apply for the dataset itself", kind=Kind.CONFLICT)
        now = self._clock.now_ms()
        if time_limit is not None and time_limit <= now:
            raise ProtocolViolation("time_limit must lie in the future (milliseconds)")
        state, _ = step(None, Event.APPLY)
        applied = Audit(
            applicant=user,
            audit_id=AuditId(f"{RECORDED}{self._entropy.token(16).hex()}"),
            kind=AuditKind.DATASET,
            direction=Direction.IN,
            peer_node_id=user,
            contract_id=contract.contract_id,
            status=state,
            subject=dataset_id,
            body={"auth_scope": dict(scope)} if scope else {},
            permit=None,
            created=now,
            updated=now,
        )
        tx.insert(applied)
        self._most.pop((user, AuditKind.DATASET), None)
        # Its token is told to nobody: grants.authorise finds the grant without one.
        self._grants.issue(tx, applied, columns=columns, time_limit=time_limit, times_limit=times_limit)
        state, effects = step(applied.status, Event.APPROVE)
        return self._move(tx, applied, replace(applied, status=state), effects)

    # --- either side ends it ----------------------------------------------------------------------------------------

    def terminate(self, tx: Tx, audit_key: str, *, trace_id: TraceId | None = None) -> Audit:
        """Our side ends an approval or withdraws an application; the partner is told through the outbox.

        Where no contract with it holds any more, ours ends all the same: there is nobody to tell.
        """
        old = self._by_key(tx, audit_key)
        if old.direction is Direction.IN and old.status is ApprovalState.APPLIED:
            raise Refused("an application is rejected, not terminated", kind=Kind.ILLEGAL_TRANSITION)
        new = self._end(tx, old)
        if new != old:
            try:
                contract = self._partners.contract_with(tx, old.peer_node_id)
            except Refused:
                return new
            self._send(tx, contract, new, "terminate", body={"audit_id": new.audit_id}, trace_id=trace_id)
        return new

    def terminated(self, tx: Tx, caller: Caller, kind: AuditKind, body: Mapping[str, Any]) -> Audit:
        """The partner ends it (A-24: both may)."""
        return self._end(tx, self.of_caller(tx, caller, kind, body["audit_id"]))

    def ended_there(self, tx: Tx, audit: Audit) -> Audit:
        """A comparison showed that the partner has ended or forgotten it; nobody is told (service.reconcile)."""
        return self._end(tx, audit)

    def send_again(self, tx: Tx, audit: Audit, verb: str, *, trace_id: TraceId) -> None:
        """Repeat a call about an audit as it is: apply, confirm or terminate (service.reconcile)."""
        body: Json = {"audit_id": audit.audit_id}
        if verb == "apply":
            body = audit.body
        elif verb == "confirm":
            body = audit_confirm_body(audit)
        contract = self._partners.contract_with(tx, audit.peer_node_id)
        self._send(tx, contract, audit, verb, body=body, trace_id=trace_id)

    def _contract_closed(self, tx: Tx, contract: Contract) -> None:
        """What was approved under a contract ends with it, on both sides without a word."""
        for each in tx.select(Audit, contract_id=contract.contract_id):
            # As it is now: the end of one may have ended others, a project's that of the jobs in it.
            audit = tx.get(Audit, each.key())
            if audit is not None and audit.status in (ApprovalState.APPLIED, ApprovalState.APPROVED):
                self._end(tx, audit)

    def _end(self, tx: Tx, old: Audit) -> Audit:
        state, effects = step(old.status, Event.TERMINATE)
        if state is old.status:
            return old
        return self._move(tx, old, replace(old, status=state), effects)

    # --- shared -----------------------------------------------------------------------------------------------------

    def _move(self, tx: Tx, old: Audit, new: Audit, effects: Sequence[Effect]) -> Audit:
        new = replace(new, updated=self._clock.now_ms())
        tx.replace(old, new)
        if Effect.CLOSE in effects and new.kind is AuditKind.DATASET and new.direction is Direction.IN:
            self._grants.revoke(tx, new.key())
        self._tell(tx, new)
        return new

    def _tell(self, tx: Tx, audit: Audit) -> None:
        for listener in self._listeners.get(audit.kind, ()):
            listener(tx, audit)

    def _send(
        self, tx: Tx, contract: Contract, audit: Audit, verb: str, *, body: Json, trace_id: TraceId | None
    ) -> None:
        route = f"{audit.kind.value}.audit.{verb}"
        if not profile(contract.profile).offers(route):
            if verb == "apply":
                raise Refused(
                    f"{contract.peer_node_id} is {contract.profile} and has no {route}", kind=Kind.NOT_OFFERED
                )
            return
        self._outgoing.put(
            tx,
            contract=contract,
            route=route,
            body=body,
            subject=subject_of(audit.key()),
            trace_id=trace_id,
        )


def _text(body: Json) -> str:
    return json.dumps(body, sort_keys=True)
