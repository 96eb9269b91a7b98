"""Grants: what this node lets partners do with its datasets, counted; and the permits it holds for theirs.

A grant is made when a dataset audit is approved. A job presents permits once, when it is created (`authorise`): that
reserves one use of each grant. It is looked at again before a task is admitted (`recheck`) and when its data are opened
(`open`), which consumes the use; `job_ended` returns what was never opened. Works inside the caller's transaction: a
refusal for one dataset leaves the count of the others untouched, and two jobs never get the same last use.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from gateway.auth.tokens import issue_token, token_digest
from gateway.errors import GatewayError, Kind, Refused
from gateway.mgmt_plane.core.acl import (
    LEVEL_DATASET,
    DatasetUse,
    bind_components,
    check_grant,
    schema_digest,
    token_set,
)
from gateway.mgmt_plane.core.profile import profile
from gateway.mgmt_plane.core.uses import HOLDS, UseEvent, step_use
from gateway.mgmt_plane.service.membership import joined
from gateway.mgmt_plane.service.partners import Partners, is_valid
from gateway.model import (
    Audit,
    Component,
    Contract,
    Dataset,
    DatasetId,
    Direction,
    Grant,
    GrantUse,
    Identity,
    Job,
    JobId,
    Json,
    NodeId,
    Permit,
    UseState,
)
from gateway.ports import Clock, Entropy, Tx
from specs.states import ApprovalState, AuditKind, AuthScope

__all__ = ["RECORDED", "DatasetUse", "Grants", "left_of"]

RECORDED: Final = "au-recorded-"
"""Beginning of the audit_id of a grant that was recorded by hand."""


class Grants:
    """Both sides of the permits of datasets."""

    def __init__(self, *, identity: Identity, partners: Partners, clock: Clock, entropy: Entropy) -> None:
        self._identity = identity
        self._partners = partners
        self._clock = clock
        self._entropy = entropy

    # --- holder -----------------------------------------------------------------------------------------------------

    def issue(
        self, tx: Tx, audit: Audit, *, columns: Sequence[str] = (), time_limit: int | None, times_limit: int | None
    ) -> dict[str, object]:
        """Make the grant of a dataset audit that is being approved; returns its resource_permit (b.6).

        columns: those that may be used, empty for all. times_limit: None or -1 for any number. Raises Refused:
        NOT_FOUND where dataset or column is unknown, COMPONENT_UNKNOWN where none of the scope's is registered here.
        """
        times_limit = None if times_limit == -1 else times_limit
        dataset = tx.get(Dataset, audit.subject)
        if dataset is None:
            raise Refused(f"dataset {audit.subject} is not in the catalogue", kind=Kind.NOT_FOUND)
        known = {each["name"] for each in dataset.column_metas}
        unknown = [each for each in columns if each not in known]
        if unknown:
            raise Refused(f"column {unknown[0]} is not in the dataset", kind=Kind.NOT_FOUND)
        contract = self._partners.contract_with(tx, audit.peer_node_id)
        scope = audit.body.get("auth_scope", {})
        components = bind_components(scope, tx.select(Component, enabled=True))
        if scope.get(AuthScope.COMPONENT.value) and not components:
            words = f"none of the components is registered here: {', '.join(scope[AuthScope.COMPONENT.value])[:200]}"
            raise Refused(words, kind=Kind.COMPONENT_UNKNOWN)
        token = issue_token(self._entropy.token(32))
        tx.insert(
            Grant(
                token_digest=token_digest(token),
                audit_key=audit.key(),
                dataset_id=dataset.dataset_id,
                holder=self._identity.node_id,
                user=audit.peer_node_id,
                scope=scope,
                columns=tuple(columns),
                time_limit=time_limit,
                times_limit=times_limit,
                used=0,
                revoked=False,
                created=self._clock.now_ms(),
                schema_digest=schema_digest(dataset),
                components=components,
            )
        )
        permit: dict[str, object] = {
            "token": token,
            "resource_level": LEVEL_DATASET,
            "resource_type": "DATASET",
            "resource_id": dataset.dataset_id,
            "resource_node_id": self._identity.node_id,
            "resource_inst_id": self._identity.inst_id,
            "request_node_id": audit.peer_node_id,
            "request_inst_id": contract.peer_inst_id,
        }
        if time_limit is not None:
            permit["time_limit"] = time_limit
        if times_limit is not None:
            permit["times_limit"] = times_limit
        return permit

    def revoke(self, tx: Tx, audit_key: str) -> list[Grant]:
        """Void the grants of a terminated audit (M-048); those that held until now."""
        found = list(tx.select(Grant, audit_key=audit_key, revoked=False))
        for grant in found:
            tx.replace(grant, replace(grant, revoked=True))
        return found

    def jobs_under(self, tx: Tx, audit_key: str) -> list[JobId]:
        """Jobs that have reserved or opened data under the grants of an audit."""
        uses = [
            use for grant in tx.select(Grant, audit_key=audit_key) for use in tx.select(GrantUse, grant=grant.key())
        ]
        return [use.job_id for use in uses if use.state in HOLDS]

    def may_see(self, tx: Tx, *, user: NodeId, dataset_id: str) -> bool:
        """A private dataset shows itself to those it was granted to (M-043)."""
        now = self._clock.now_ms()
        return any(
            (grant.time_limit is None or now <= grant.time_limit) and self._contract_holds(tx, grant, now)
            for grant in tx.select(Grant, dataset_id=dataset_id, user=user, revoked=False)
        )

    @staticmethod
    def _contract_holds(tx: Tx, grant: Grant, now: int) -> bool:
        """A grant ends with the contract it was given under, also where that only ran out (M-034).

        Else a later contract with the same node would bring old grants back to life.
        """
        audit = tx.get(Audit, grant.audit_key)
        contract = tx.get(Contract, audit.contract_id) if audit is not None else None
        return contract is not None and is_valid(contract, now)

    def authorise(
        self,
        tx: Tx,
        *,
        user: NodeId,
        job_id: JobId,
        project_id: str,
        uses: Sequence[DatasetUse],
        permits: Sequence[Permit],
        now: int,
    ) -> None:
        """Let `user`'s job use our datasets under the permits it presents, and reserve a use of each grant (M-049).

        Our own jobs need no permit. Raises Refused: NOT_FOUND, and what check_grant does.
        """
        presented = {token_digest(each.token) for each in permits}
        for use in uses:
            if tx.get(Dataset, use.dataset_id) is None:
                raise Refused(f"dataset {use.dataset_id} is not known here", kind=Kind.NOT_FOUND)
            if user == self._identity.node_id:
                continue
            contract = self._partners.contract_with(tx, user)
            digests = presented | self._recorded(tx, contract)
            grants = [grant for digest in sorted(digests) if (grant := tx.get(Grant, digest)) is not None]
            grant = self._fitting(tx, grants, use, user=user, job_id=job_id, project_id=project_id, now=now)
            self._step(tx, grant, job_id, UseEvent.RESERVE, now=now)

    @staticmethod
    def _step(tx: Tx, grant: Grant, job_id: JobId, event: UseEvent, *, now: int) -> None:
        """Move one use by the table and the grant's counts with it."""
        known = tx.get(GrantUse, f"{grant.token_digest}/{job_id}")
        state = step_use(known.state if known is not None else None, event)
        if known is None:
            tx.insert(GrantUse(grant.token_digest, job_id, now, state))
        elif state is known.state:
            return
        else:
            opened = now if state is UseState.CONSUMED else None
            tx.replace(known, replace(known, state=state, opened=opened))
        reserved = grant.reserved + (1 if state is UseState.RESERVED else -1)
        used = grant.used + (1 if state is UseState.CONSUMED else 0)
        tx.replace(grant, replace(grant, reserved=reserved, used=used))

    def job_ended(self, tx: Tx, _before: Job, job: Job) -> None:
        """Give back what the job has reserved and never opened (listener of JobBook.on_end)."""
        for use in tx.select(GrantUse, job_id=job.job_id, state=UseState.RESERVED):
            grant = tx.get(Grant, use.grant)
            if grant is not None:
                self._step(tx, grant, job.job_id, UseEvent.END, now=self._clock.now_ms())

    def _recorded(self, tx: Tx, contract: Contract) -> set[str]:
        """What was granted by hand to a partner without a management layer, which has no permit to show."""
        if profile(contract.profile).managed:
            return set()
        start = f"{contract.peer_node_id}/{RECORDED}"
        grants = tx.select(Grant, user=contract.peer_node_id, revoked=False)
        return {each.token_digest for each in grants if each.audit_key.startswith(start)}

    def _fitting(
        self,
        tx: Tx,
        grants: Sequence[Grant],
        use: DatasetUse,
        *,
        user: NodeId,
        job_id: JobId,
        project_id: str,
        now: int,
    ) -> Grant:
        """The first grant that covers the use, one that this job has been counted on before others."""
        dataset = tx.get(Dataset, use.dataset_id)
        schema = schema_digest(dataset) if dataset is not None else ""
        codes = {key: found.code_digest for key in use.components if (found := tx.get(Component, key)) is not None}
        uses = {each.grant: each.state for each in tx.select(GrantUse, job_id=job_id)}
        counted = {grant.token_digest for grant in grants if uses.get(grant.token_digest) in HOLDS}
        why: GatewayError = Refused(
            f"{user} shows no permit for {use.dataset_id}", kind=Kind.GRANT_MISSING, detail=use.dataset_id
        )
        for grant in sorted(grants, key=lambda each: each.token_digest not in counted):
            if grant.dataset_id != use.dataset_id or grant.user != user:
                continue
            try:
                check_grant(
                    grant,
                    use,
                    user=user,
                    project_id=project_id,
                    now=now,
                    counted=grant.token_digest in counted,
                    schema=schema,
                    codes=codes,
                )
            except Refused as e:
                why = e
            else:
                if not self._contract_holds(tx, grant, now):
                    why = Refused("the grant's contract has ended", kind=Kind.GRANT_EXPIRED, detail=use.dataset_id)
                elif AuthScope.PROJECT.value in grant.scope and not self._takes_part(tx, user, project_id):
                    why = Refused("the project is not approved", kind=Kind.GRANT_MISSING, detail=use.dataset_id)
                else:
                    return grant
        raise why

    def _takes_part(self, tx: Tx, user: NodeId, project_id: str) -> bool:
        """A partner without a management layer can join nothing: what was agreed with it was recorded by hand."""
        managed = profile(self._partners.contract_with(tx, user).profile).managed
        return not managed or joined(tx, node=user, project_id=project_id)

    def recheck(
        self, tx: Tx, *, user: NodeId, job_id: JobId, project_id: str, uses: Sequence[DatasetUse], now: int
    ) -> Mapping[DatasetId, tuple[str, ...]]:
        """Before a task is admitted for an authorised job: the grants still hold. Columns per dataset, () for all.

        Counts nothing. Raises as `authorise`, and Refused(CONTRACT_INVALID) where the contract has ended meanwhile.
        """
        found = self._standing(tx, user=user, job_id=job_id, project_id=project_id, uses=uses, now=now)
        return {dataset_id: grant.columns if grant is not None else () for dataset_id, grant in found.items()}

    def open(
        self, tx: Tx, *, user: NodeId, job_id: JobId, project_id: str, uses: Sequence[DatasetUse], now: int
    ) -> Mapping[DatasetId, tuple[str, ...]]:
        """As `recheck`, when the data are about to be read: the reserved uses are consumed, once per job.

        A grant that is taken back before this transaction refuses; one that is taken back after it stops the job.
        """
        found = self._standing(tx, user=user, job_id=job_id, project_id=project_id, uses=uses, now=now)
        for grant in found.values():
            if grant is not None:
                self._step(tx, grant, job_id, UseEvent.OPEN, now=now)
        return {dataset_id: grant.columns if grant is not None else () for dataset_id, grant in found.items()}

    def _standing(
        self, tx: Tx, *, user: NodeId, job_id: JobId, project_id: str, uses: Sequence[DatasetUse], now: int
    ) -> dict[DatasetId, Grant | None]:
        """The grant that each dataset of an authorised job is used under, None for our own jobs."""
        found: dict[DatasetId, Grant | None] = {}
        for use in uses:
            if tx.get(Dataset, use.dataset_id) is None:
                raise Refused(f"dataset {use.dataset_id} is not known here", kind=Kind.NOT_FOUND)
            if user == self._identity.node_id:
                found[use.dataset_id] = None
                continue
            self._partners.contract_with(tx, user)
            grants = [
                grant
                for each in tx.select(GrantUse, job_id=job_id)
                if each.state in HOLDS and (grant := tx.get(Grant, each.grant)) is not None
            ]
            found[use.dataset_id] = self._fitting(
                tx, grants, use, user=user, job_id=job_id, project_id=project_id, now=now
            )
        return found

    def all(self, tx: Tx) -> list[tuple[Grant, Sequence[GrantUse]]]:
        """Every grant we have given, newest first, with its uses."""
        return [(grant, tx.select(GrantUse, grant=grant.key())) for grant in tx.select(Grant, order="-created")]

    # --- user -------------------------------------------------------------------------------------------------------

    def permits_held(self, tx: Tx, *, holder: NodeId, dataset_ids: Sequence[DatasetId], now: int) -> list[Json]:
        """Our permits for these datasets of `holder` that have not run out, newest first."""
        found: list[Json] = []
        for dataset_id in dataset_ids:
            for audit in tx.select(
                Audit,
                order="-updated",
                kind=AuditKind.DATASET,
                subject=dataset_id,
                peer_node_id=holder,
                direction=Direction.OUT,
                status=ApprovalState.APPROVED,
            ):
                limit = audit.permit.get("time_limit") if audit.permit else None
                if audit.permit is not None and not (isinstance(limit, int) and limit < now):
                    found.append(audit.permit)
        return found

    def token_set(self, permits: Sequence[Json]) -> str:
        """x-mprac-token-set that presents these permits."""
        return token_set(permits)


def left_of(grant: Grant) -> int | None:
    """Jobs that may still be created under a grant; None for any number."""
    return None if grant.times_limit is None else max(0, grant.times_limit - grant.used - grant.reserved)
