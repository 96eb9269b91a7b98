"""Whether a job may name the project and the flow that it names: both sides ask, before they take the job.

Pure reading inside the caller's transaction. A project must have been joined; a flow need not have been asked for (the
flow group is optional), but where it was, its approval must stand and the job must run the very DAG that was approved.
Partners whose product has no management layer can join nothing and are not asked to.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.errors import Kind, Refused
from gateway.mgmt_plane.core.control_profile import channel_id, per_task
from gateway.mgmt_plane.core.dag import Lookup, Plan, digest, session_of
from gateway.mgmt_plane.core.profile import STRICT, Profile, profile
from gateway.model import Audit, Contract, DeclaredSession, Job, Json, NodeId, Project, SessionId, Share
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

    One job has one channel id: with several such partners the first of config.role decides. A task may have another
    one, and others may call it otherwise: `task_channel`.
    """
    standard = session_of(job.job_id)
    dialects = [dialect_of(tx, node).control for node in plan.participants]
    ids = (channel_id(each, job.job_id) for each in dialects if not per_task(each))
    return next((each for each in ids if each != standard), standard)


@dataclass(frozen=True, slots=True)
class TaskChannel:
    """The channel id that a task of ours is given, and what those nodes call it that call it otherwise."""

    session: SessionId
    aliases: Mapping[NodeId, SessionId]


def task_channel(tx: Tx, job: Job, plan: Plan, share: Share, *, own: NodeId, lookup: Lookup) -> TaskChannel:
    """The channel of a task of ours: as all the others that run it call it, else that of the job."""
    others = {party.node_id for party in plan.parties_of(share.task_name, lookup)} - {own}
    names = {node: channel_id(dialect_of(tx, node).control, job.job_id, share.task_id) for node in others}
    session = next(iter(names.values())) if len(set(names.values())) == 1 else channel_of(tx, job, plan)
    return TaskChannel(session, {node: name for node, name in names.items() if name != session})


def check_task_channel(tx: Tx, job: Job, channel: TaskChannel) -> None:
    """Raises Refused(CONFLICT) where a task's channel is that of another job or one that an admin declared.

    A partner that schedules chooses the task's id, and must not reach another job's messages by it.
    """
    for each in {channel.session, *channel.aliases.values()}:
        taken = any(tx.get(Job, name) for name in (each, each.removeprefix("session_")) if name != job.job_id)
        declared = (known for known in tx.select(DeclaredSession) if not known.ended(job.created))
        if taken or any(known.covers(each) for known in declared):
            raise Refused(f"the channel {each[:64]} of the task is another one's", kind=Kind.CONFLICT)


def check_channel(tx: Tx, job: Job, plan: Plan) -> None:
    """Raises Refused(CONFLICT) where an admin declared the session of a new job for containers of another product."""
    session = channel_of(tx, job, plan)
    if tx.count(Share, task_id=job.job_id):
        raise Refused("its id is a task's, whose channel would be this job's", kind=Kind.CONFLICT)
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
