"""Grants: what this node lets partners do with its datasets, counted; and the permits it holds for theirs.

A grant is made when a dataset audit is approved. A job presents permits once, when it is created (`authorise`), and is
looked at again whenever data is opened for it (`recheck`). Works inside the caller's transaction: a refusal for one
dataset leaves the count of the others untouched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from gateway.auth.tokens import issue_token, token_digest
from gateway.errors import GatewayError, Kind, Refused
from gateway.mgmt_plane.core.acl import LEVEL_DATASET, DatasetUse, check_grant, token_set
from gateway.mgmt_plane.core.profile import profile
from gateway.mgmt_plane.service.partners import Partners, is_valid
from gateway.model import (
    Audit,
    Contract,
    Dataset,
    DatasetId,
    Direction,
    Grant,
    GrantUse,
    Identity,
    JobId,
    Json,
    NodeId,
    Permit,
)
from gateway.ports import Clock, Entropy, Tx
from specs.states import ApprovalState, AuditKind, AuthScope

__all__ = ["RECORDED", "DatasetUse", "Grants"]

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

        columns: those that may be used, empty for all. Raises Refused(NOT_FOUND) where dataset or column is unknown.
        """
        dataset = tx.get(Dataset, audit.subject)
        if dataset is None:
            raise Refused(f"dataset {audit.subject} is not in the catalogue", kind=Kind.NOT_FOUND)
        known = {each["name"] for each in dataset.column_metas}
        unknown = [each for each in columns if each not in known]
        if unknown:
            raise Refused(f"column {unknown[0]} is not in the dataset", kind=Kind.NOT_FOUND)
        contract = self._partners.contract_with(tx, audit.peer_node_id)
        token = issue_token(self._entropy.token(32))
        tx.insert(
            Grant(
                token_digest=token_digest(token),
                audit_key=audit.key(),
                dataset_id=dataset.dataset_id,
                holder=self._identity.node_id,
                user=audit.peer_node_id,
                scope=audit.body.get("auth_scope", {}),
                columns=tuple(columns),
                time_limit=time_limit,
                times_limit=times_limit,
                used=0,
                revoked=False,
                created=self._clock.now_ms(),
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

    def revoke(self, tx: Tx, audit_key: str) -> None:
        """Void the grants of a terminated audit (M-048)."""
        for grant in tx.select(Grant, audit_key=audit_key, revoked=False):
            tx.replace(grant, replace(grant, revoked=True))

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
        """Let `user`'s job use our datasets under the permits it presents, and count it: once per (grant, job) (M-049).

        Our own jobs need no permit. Raises Refused: NOT_FOUND, GRANT_MISSING, GRANT_EXPIRED, GRANT_EXHAUSTED.
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
            counted = GrantUse(grant.token_digest, job_id, now)
            if tx.get(GrantUse, counted.key()) is None:
                tx.insert(counted)
                tx.replace(grant, replace(grant, used=grant.used + 1))

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
        counted = {grant.token_digest for grant in grants if tx.get(GrantUse, f"{grant.token_digest}/{job_id}")}
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
                )
            except Refused as e:
                why = e
            else:
                if not self._contract_holds(tx, grant, now):
                    why = Refused("the grant's contract has ended", kind=Kind.GRANT_EXPIRED, detail=use.dataset_id)
                elif AuthScope.PROJECT.value in grant.scope and not _stands(tx, user, project_id):
                    why = Refused("the project is not approved", kind=Kind.GRANT_MISSING, detail=use.dataset_id)
                else:
                    return grant
        raise why

    def recheck(
        self, tx: Tx, *, user: NodeId, job_id: JobId, project_id: str, uses: Sequence[DatasetUse], now: int
    ) -> Mapping[DatasetId, tuple[str, ...]]:
        """Before data is opened for an authorised job: the grants still hold. Columns per dataset, () for all.

        Counts nothing. Raises as `authorise`, and Refused(CONTRACT_INVALID) where the contract has ended meanwhile.
        """
        columns: dict[DatasetId, tuple[str, ...]] = {}
        for use in uses:
            if tx.get(Dataset, use.dataset_id) is None:
                raise Refused(f"dataset {use.dataset_id} is not known here", kind=Kind.NOT_FOUND)
            if user == self._identity.node_id:
                columns[use.dataset_id] = ()
                continue
            self._partners.contract_with(tx, user)
            grants = [
                grant
                for counted in tx.select(GrantUse, job_id=job_id)
                if (grant := tx.get(Grant, counted.grant)) is not None
            ]
            grant = self._fitting(tx, grants, use, user=user, job_id=job_id, project_id=project_id, now=now)
            columns[use.dataset_id] = grant.columns
        return columns

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


def _stands(tx: Tx, user: NodeId, project_id: str) -> bool:
    """False where a project was asked for, by either side, and is not approved (any more)."""
    audits = tx.select(Audit, kind=AuditKind.PROJECT, subject=project_id, peer_node_id=user)
    return not audits or any(each.status is ApprovalState.APPROVED for each in audits)
