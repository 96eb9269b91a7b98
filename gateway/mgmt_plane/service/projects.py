"""Projects: rooms for cooperation that one node opens and others join by approving an audit (1-management c.4)."""

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.errors import Kind, ProtocolViolation, Refused
from gateway.mgmt_plane.core.messages import Page, node_body, peer_node, project_detail, project_record
from gateway.mgmt_plane.service.audits import Audits
from gateway.mgmt_plane.service.outgoing import new_trace
from gateway.mgmt_plane.service.partners import Partners
from gateway.model import Audit, Contract, Dataset, Direction, Identity, NodeId, Project, ProjectId
from gateway.ports import Clock, Entropy, Tx
from specs.states import ApprovalState, AuditKind, ProjectType


class Projects:
    """Ours and those we were asked to join. Works inside transactions that the callers open."""

    def __init__(
        self, *, identity: Identity, partners: Partners, audits: Audits, clock: Clock, entropy: Entropy
    ) -> None:
        self._identity = identity
        self._partners = partners
        self._audits = audits
        self._clock = clock
        self._entropy = entropy
        audits.listen(AuditKind.PROJECT, self._joined)

    def create(
        self,
        tx: Tx,
        *,
        name: str,
        kind: str,
        description: str,
        datasets: Mapping[NodeId, Sequence[str]],
        known: Mapping[str, Mapping[str, Any]],
    ) -> Project:
        """Open a project and ask every partner that `datasets` names, each for its own datasets (A-22).

        known: what partners said of their datasets (b.4), by id, for name, count and category.
        """
        if kind not in ProjectType.__members__:
            raise ProtocolViolation(f"type must be one of {', '.join(ProjectType)}")
        own = self._identity.node_id
        for dataset_id in datasets.get(own, ()):
            if tx.get(Dataset, dataset_id) is None:
                raise Refused(f"dataset {dataset_id} is not known here", kind=Kind.NOT_FOUND, detail="dataset_id")
        partners = [node for node in datasets if node != own]
        contracts = [self._partners.contract_with(tx, node) for node in partners]
        project = Project(
            project_id=ProjectId(f"pj-{self._entropy.token(16).hex()}"),
            name=name,
            type=kind,
            description=description,
            initiator=own,
            nodes=(own, *partners),
            datasets={node: list(ids) for node, ids in datasets.items()},
            created=self._clock.now_ms(),
        )
        tx.insert(project)
        trace_id = new_trace(self._entropy)
        for contract in contracts:
            body = {
                "name": name,
                "type": kind,
                "datasets": [
                    _project_dataset(each, contract, known.get(each, {})) for each in datasets[contract.peer_node_id]
                ],
            }
            self._audits.apply(
                tx, kind=AuditKind.PROJECT, contract=contract, subject=project.project_id, body=body, trace_id=trace_id
            )
        return project

    def _joined(self, tx: Tx, audit: Audit) -> None:
        """We approved a partner's project: now it is known here too."""
        if audit.direction is not Direction.IN or audit.status is not ApprovalState.APPROVED:
            return
        known = tx.get(Project, audit.subject)
        if known is not None:
            if known.initiator != audit.applicant:
                raise Refused("project_id is in use", kind=Kind.CONFLICT, detail="project_id")
            return
        own = self._identity.node_id
        tx.insert(
            Project(
                project_id=ProjectId(audit.subject),
                name=audit.body["name"],
                type=audit.body.get("type", ""),
                description="",
                initiator=audit.applicant,
                nodes=(audit.applicant, own),
                datasets={own: [each["dataset_id"] for each in audit.body.get("datasets", ())]},
                created=self._clock.now_ms(),
            )
        )

    def usable(self, tx: Tx, project_id: str) -> bool:
        """Every audit of the project is APPROVED (A-22); a project without partners is."""
        if tx.get(Project, project_id) is None:
            return False
        audits = self._audits.find(tx, kind=AuditKind.PROJECT, subject=project_id)
        return all(each.status is ApprovalState.APPROVED for each in audits)

    def _shared(self, tx: Tx, node_id: NodeId) -> list[Project]:
        return [each for each in tx.select(Project, initiator=self._identity.node_id) if node_id in each.nodes]

    def list_for(self, tx: Tx, *, node_id: NodeId, page: Page) -> tuple[list[dict[str, Any]], int]:
        """Our projects in which `node_id` takes part (M-053)."""
        found = self._shared(tx, node_id)
        return [project_record(each) for each in found[page.offset : page.offset + page.limit]], len(found)

    def detail_for(self, tx: Tx, *, node_id: NodeId, project_id: str) -> dict[str, Any]:
        """One of them; what it does not take part in looks unknown (M-054)."""
        for project in self._shared(tx, node_id):
            if project.project_id == project_id:
                return project_detail(project, self._nodes(tx, project))
        raise Refused(f"project {project_id} is not {node_id}'s", kind=Kind.NOT_FOUND, detail="project_id")

    def _nodes(self, tx: Tx, project: Project) -> dict[NodeId, Mapping[str, Any]]:
        nodes: dict[NodeId, Mapping[str, Any]] = {self._identity.node_id: node_body(self._identity)}
        for node in project.nodes:
            for contract in tx.select(
                Contract, peer_node_id=node, status=ApprovalState.APPROVED, order="-updated", limit=1
            ):
                nodes[node] = peer_node(contract)
        return nodes


def _project_dataset(dataset_id: str, contract: Contract, known: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "dataset_id": dataset_id,
        "name": str(known.get("name") or dataset_id),
        "owner": str(known.get("owner") or contract.peer_inst_id),
    }
    count = known.get("count")
    if isinstance(count, int) and not isinstance(count, bool):
        made["count"] = count
    return made
