"""Whether a job may name the project and the flow that it names: both sides ask, before they take the job.

Pure reading inside the caller's transaction. A project must have been joined; a flow need not have been asked for (the
flow group is optional), but where it was, its approval must stand and the job must run the very DAG that was approved.
Partners whose product has no management layer can join nothing and are not asked to.
"""

from collections.abc import Iterable
from typing import Final

from gateway.errors import Kind, Refused
from gateway.mgmt_plane.core.control_profile import channel_id
from gateway.mgmt_plane.core.dag import Plan, digest, session_of
from gateway.mgmt_plane.core.profile import STRICT, Profile, profile
from gateway.model import Audit, Contract, DeclaredSession, Job, Json, NodeId, Project, SessionId
from gateway.ports import Tx
from specs.states import ApprovalState, AuditKind

NO_PROJECT: Final = "-"
"""project_id of a job audit about a job outside any project: the standard requires one (1-management 8.1)."""


def joined(tx: Tx, *, node: NodeId, project_id: str) -> bool:
    """Whether an approval of the project stands between us and `node`."""
    audits = tx.select(Audit, kind=AuditKind.PROJECT, subject=project_id, peer_node_id=node)
    return any(each.status is ApprovalState.APPROVED for each in audits)


def channel_of(tx: Tx, job: Job, plan: Plan) -> SessionId:
    """Channel id of a job: the standard's, unless a partner's product knows another one (B-27).

    One job has one channel id: with several such partners the first of config.role decides.
    """
    standard = session_of(job.job_id)
    ids = (channel_id(dialect_of(tx, node).control, job.job_id) for node in plan.participants)
    return next((each for each in ids if each != standard), standard)


def check_channel(tx: Tx, job: Job, plan: Plan) -> None:
    """Raises Refused(CONFLICT) where an admin declared the session of a new job for containers of another product."""
    session = channel_of(tx, job, plan)
    for each in tx.select(DeclaredSession):
        if each.covers(session) and not each.ended(job.created):
            raise Refused(f"its session {session[:64]} is declared: interconn session close", kind=Kind.CONFLICT)


def check_project(tx: Tx, project_id: str, *, own: NodeId, others: Iterable[NodeId]) -> None:
    """Raises Refused(GRANT_MISSING) unless the project is known here and was joined.

    others: the nodes that a job in it concerns. In a project of ours each of them must have joined; in a partner's we
    can only know of ourselves.
    """
    if project_id in ("", NO_PROJECT):
        return
    project = tx.get(Project, project_id)
    if project is None:
        raise Refused(f"project {project_id[:64]} was never joined here", kind=Kind.GRANT_MISSING)
    asked = others if project.initiator == own else [project.initiator]
    for node in asked:
        if node != own and dialect_of(tx, node).managed and not joined(tx, node=node, project_id=project_id):
            words = f"project {project_id[:64]} is not (or no longer) agreed between {own} and {node}"
            raise Refused(words, kind=Kind.GRANT_MISSING)


def dialect_of(tx: Tx, node: NodeId) -> Profile:
    """The profile of the newest contract with `node`; the standard's where there is none."""
    found = tx.select(Contract, peer_node_id=node, status=ApprovalState.APPROVED, order="-updated", limit=1)
    return profile(found[0].profile) if found else STRICT


def asks_approval(tx: Tx, node: NodeId) -> bool:
    """Whether jobs with `node` are agreed by job audits; products without them have no approval step (B-30)."""
    return dialect_of(tx, node).offers("job.audit.apply")


def check_flow(tx: Tx, flow_id: str, dag: Json, *, others: Iterable[NodeId]) -> None:
    """Raises Refused: GRANT_MISSING where the flow's approval with one of `others` does not stand, NOT_AS_APPROVED
    where the DAG is another one.
    """
    for node in others:
        audits = tx.select(Audit, kind=AuditKind.FLOW, subject=flow_id, peer_node_id=node)
        standing = [each for each in audits if each.status is ApprovalState.APPROVED]
        if audits and not standing:
            raise Refused(f"flow {flow_id[:64]} is not approved between us and {node}", kind=Kind.GRANT_MISSING)
        if standing and digest(dag, {}) not in {digest(each.body.get("dag", {}), {}) for each in standing}:
            raise Refused(f"flow {flow_id[:64]} was approved with another DAG", kind=Kind.NOT_AS_APPROVED)
