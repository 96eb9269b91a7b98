"""DAG and Config of a job (part 2: b.3, b.4, g.2): parse, check, and every question the scheduler asks of them.

`parse_plan` takes the JSON of the wire and refuses what no node could run; `problems` compares a plan with the
self-descriptions of the components and names everything that is wrong. Unknown members stay in `Plan.dag` and
`Plan.config` (C-006); absent members count as empty (C-019, B-24). No I/O and no state: task states are arguments.

Where the standard is silent (g.2 [P]): a component runs at every party whose role is in its roleList; party parameters
override common ones key by key; inputs and outputs of a DAG node map to the description by position within their class.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from gateway.errors import Kind, ProtocolViolation
from gateway.model import DURABILITIES, DatasetId, JobId, Json, Limits, NodeId, Party, SessionId, TaskName
from specs.description import Description, ParameterError
from specs.states import SyncType, TaskState

CLASSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("dataset", "training_set", "test_set", "datasets", "data", "validate_set"), "data"),
        "model": "model",
        "report": "report",
        "metric": "metric",
    }
)
"""Type word -> class; `data` and `validate_set` are what the FATE translator takes (2-control e)."""

SAFE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""Job and task ids name folders here, so a partner's id must be one plain folder name (B-26)."""
RERUN: Final = "rerun"
_NAME: Final = re.compile(r"[^\s./\\=,\x00-\x1f\x7f]{1,64}")
_ROLE: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_NODE: Final = re.compile(r"[!-~]{1,128}")


class DagError(ProtocolViolation):
    """The DAG or its Config is not valid; the message begins with the place (`dag.components[2].input[0].key`)."""

    default_kind = Kind.BAD_DAG

    def __init__(self, where: str, message: str) -> None:
        super().__init__(f"{where}: {message}")
        self.where = where
        self.problem = message


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where."""

    where: str
    message: str
    kind: Kind = Kind.BAD_DAG


@dataclass(frozen=True, slots=True)
class ComponentRef:
    """What a DAG node names: (componentName, provider, version)."""

    name: str
    provider: str
    version: str

    def key(self) -> str:
        """Key of the gateway.model.Component."""
        return f"{self.provider}/{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class Edge:
    """One input of a node: output `output` of node `producer`."""

    producer: TaskName
    output: str
    type: str


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a node."""

    key: str
    type: str


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the DAG; `index` is its place in `components`."""

    name: TaskName
    index: int
    component: ComponentRef
    inputs: tuple[Edge, ...]
    outputs: tuple[Output, ...]


@dataclass(frozen=True, slots=True)
class Bindings:
    """Ports of a description bound to a DAG node: port name -> edge, port name -> suffix of the artifact's name.

    source_port: the first input for data that no edge feeds; a party's dataset goes there.
    """

    inputs: Mapping[str, Edge]
    outputs: Mapping[str, str]
    source_port: str | None


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits of one party's components; None = no limit (C-117). memory, disk: GiB."""

    cpu: float | None = None
    memory: float | None = None
    disk: float | None = None


Lookup = Callable[[ComponentRef], Description | None]


@dataclass(frozen=True, slots=True)
class Plan:
    """A parsed job. nodes: in the order of the DAG; order: names so that producers come first."""

    dag: Json = field(repr=False)
    config: Json = field(repr=False)
    nodes: Mapping[TaskName, Node]
    order: tuple[TaskName, ...]
    initiator: NodeId
    initiator_role: str
    roles: Mapping[str, tuple[NodeId, ...]]
    scheduler: NodeId
    sync: SyncType
    rerun_of: JobId
    """Former run whose outputs are used again; empty: none."""
    reused: frozenset[TaskName]
    """Tasks that are not run: their outputs are those of `rerun_of`."""
    _task_params: Mapping[str, Any] = field(repr=False)
    _job_params: Mapping[str, Any] = field(repr=False)

    @property
    def parties(self) -> tuple[Party, ...]:
        """Every entry of config.role."""
        return tuple(Party(role, i, node) for role, nodes in self.roles.items() for i, node in enumerate(nodes))

    @property
    def participants(self) -> tuple[NodeId, ...]:
        """Distinct nodes of config.role, in its order."""
        return tuple(dict.fromkeys(party.node_id for party in self.parties))

    def parties_of(self, name: TaskName, lookup: Lookup) -> tuple[Party, ...]:
        """Parties that run a node: all whose role its component supports. A component unknown here: all parties."""
        description = lookup(self.nodes[name].component)
        return tuple(p for p in self.parties if description is None or p.role in description.role_list)

    def number(self, key: str) -> float | None:
        """A positive number of job_params.common, None where it is absent or no such number."""
        value = self._job_params["common"].get(key)
        usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9
        return float(value) if usable else None

    def text(self, key: str) -> str:
        """A text of job_params.common, "" where it is absent."""
        value = self._job_params["common"].get(key)
        return value if isinstance(value, str) else ""

    def params(self, party: Party, name: TaskName) -> dict[str, Any]:
        """Parameters of one party for one node: the party's own override the common ones (C-114, A-021)."""
        return {**self._task_params["common"].get(name, {}), **_of_party(self._task_params, party).get(name, {})}

    def resources(self, party: Party) -> Resources:
        """-1, 0, absent or not a number mean no limit."""
        given = _of_party(self._job_params, party).get("resources")
        given = given if isinstance(given, Mapping) else {}
        return Resources(**{key: _limit(given.get(key)) for key in ("cpu", "memory", "disk")})

    def dataset_of(self, party: Party, name: TaskName) -> DatasetId | None:
        """The dataset a party brings to a node, None where its parameters name none."""
        value = self.params(party, name).get("dataset_id")
        return DatasetId(value) if isinstance(value, str) and value else None

    def same(self, former: "Plan", name: TaskName, party: Party) -> bool:
        """Whether a party's task here is what it was in `former`: component, ports, parameters and data."""
        then, now = former.nodes.get(name), self.nodes[name]
        if then is None or (then.component, then.inputs, then.outputs) != (now.component, now.inputs, now.outputs):
            return False
        return former.params(party, name) == self.params(party, name)

    def downstream(self, name: TaskName) -> frozenset[TaskName]:
        """The node and every node after it (C-082)."""
        found = {name}
        for other in self.order:
            if any(edge.producer in found for edge in self.nodes[other].inputs):
                found.add(other)
        return frozenset(found)

    def ready(
        self, states: Mapping[TaskName, TaskState], *, stopped: frozenset[TaskName] = frozenset()
    ) -> list[TaskName]:
        """Nodes that may start now: not yet started, every producer SUCCESS, nothing of the job FAILED (d.4, C-041).

        stopped: nodes ended by a stop with task_name; their failure does not hold other branches back (B-43).
        """
        if any(state is TaskState.FAILED for name, state in states.items() if name not in stopped):
            return []
        return [
            name
            for name in self.order
            if states.get(name, TaskState.PENDING) is TaskState.PENDING
            and name not in stopped
            and all(states.get(edge.producer) is TaskState.SUCCESS for edge in self.nodes[name].inputs)
        ]

    def uses(self, parties: Iterable[Party]) -> dict[DatasetId, frozenset[str]]:
        """Per dataset of these parties: keys of all components that read it or anything derived from it."""
        found: dict[DatasetId, frozenset[str]] = {}
        for party in parties:
            for name in self.order:
                dataset = self.dataset_of(party, name)
                if dataset is not None:
                    reached = frozenset(self.nodes[n].component.key() for n in self.downstream(name))
                    found[dataset] = found.get(dataset, frozenset()) | reached
        return found

    def bind(self, name: TaskName, description: Description) -> Bindings:
        """Ports of the description for the node's inputs and outputs; raises DagError where one finds no place.

        An input takes the first free port of exactly its type, else the first free one of its class (g.2); an output
        takes the port of its own name, else the same rule.
        """
        node = self.nodes[name]
        where = f"dag.components[{node.index}]"
        inputs: dict[str, Edge] = {}
        for i, edge in enumerate(node.inputs):
            port = _port(edge.type, "", {n: p.category for n, p in description.input_data.items() if n not in inputs})
            if port is None:
                raise DagError(f"{where}.input[{i}]", f"{description.component_name} has no input left for {edge.type}")
            inputs[port] = edge
        outputs: dict[str, str] = {}
        for i, output in enumerate(node.outputs):
            free = {n: p.category for n, p in description.output_data.items() if n not in outputs}
            port = _port(output.type, output.key, free)
            if port is None:
                raise DagError(f"{where}.output[{i}]", f"{description.component_name} has no output for {output.type}")
            outputs[port] = output.key
        source = (n for n, p in description.input_data.items() if n not in inputs and _class(p.category) == "data")
        return Bindings(inputs, outputs, next(source, None))


def _port(kind: str, name: str, free: Mapping[str, str]) -> str | None:
    if name in free and _class(free[name]) == _class(kind):
        return name
    exact = (port for port, category in free.items() if category == kind)
    alike = (port for port, category in free.items() if _class(category) == _class(kind))
    return next(exact, None) or next(alike, None)


def _class(kind: str) -> str:
    return CLASSES.get(kind, kind)


def _limit(value: object) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9
    return float(value) if usable else None  # type: ignore[arg-type]  # `usable` says so


def _of_party(params: Mapping[str, Any], party: Party) -> dict[str, Any]:
    """Block of one party; an index key may join several by `|`, as FATE writes it (g.2)."""
    merged: dict[str, Any] = {}
    for key, block in params.get(party.role, {}).items():
        if str(party.index) in key.split("|"):
            merged.update(block)
    return merged


# --- names ------------------------------------------------------------------------------------------------------------


def session_of(job_id: str) -> SessionId:
    """Channel id of a job: one for all its tasks and nodes (C-113)."""
    return SessionId(f"session_{job_id}")


def namespace_of(job_id: str, party: Party) -> str:
    """Namespace of everything a party's tasks write (C-116)."""
    return f"{job_id}-{party.role}-{party.index}"


def artifact_name(task_id: str, key: str) -> str:
    """Name of a task's output below its party's namespace (C-116)."""
    return f"{task_id}-{key}"


def artifact(job_id: str, party: Party, task_id: str, key: str) -> dict[str, str]:
    """Value of an input or output variable (C-116)."""
    return {"namespace": namespace_of(job_id, party), "name": artifact_name(task_id, key)}


def digest(dag: Json, config: Json) -> str:
    """SHA-256 (hex) of the canonical JSON of both: what an approval is compared with (M-065, C-020)."""
    text = json.dumps({"config": config, "dag": dag}, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def safe_id(value: object, where: str, limits: Limits) -> str:
    """An id from outside that may become a folder's name; raises ProtocolViolation (MALFORMED) with the member."""
    if not isinstance(value, str) or len(value) > limits.id_chars or not SAFE_ID.fullmatch(value):
        raise ProtocolViolation(f"{where} must be a text of letters, digits, '.', '_' and '-'")
    return value


# --- parsing ----------------------------------------------------------------------------------------------------------


def parse_plan(dag: object, config: object, limits: Limits) -> Plan:
    """Plan of a DAG and a Config as they stand on the wire; raises DagError (BAD_DAG) naming the first place."""
    nodes = _nodes(_mapping(dag, "dag"), limits)
    order = _order(nodes)
    conf = _mapping(config, "config")
    roles = _roles(conf, limits)
    initiator = _mapping(conf.get("initiator"), "config.initiator")
    # The GUIDE's template writes nodeId (B-37).
    initiator_node = initiator.get("node_id", initiator.get("nodeId"))
    if not isinstance(initiator_node, str) or not _NODE.fullmatch(initiator_node):
        raise DagError("config.initiator.node_id", "missing or not a node id")
    job_params = _params(conf, "job_params", roles)
    common = job_params["common"]
    scheduler = common.get("scheduler_node_id", initiator_node)
    if not isinstance(scheduler, str) or not _NODE.fullmatch(scheduler):
        raise DagError("config.job_params.common.scheduler_node_id", "not a node id")
    # Absent means poll (C-056); a word we do not know cannot be obeyed.
    sync = common.get("sync_type") or SyncType.POLL
    if sync not in set(SyncType):
        raise DagError("config.job_params.common.sync_type", "must be poll or callback")
    if (common.get("durability") or DURABILITIES[0]) not in DURABILITIES:
        raise DagError("config.job_params.common.durability", "must be memory or spool")
    rerun_of, reused = _rerun(common.get(RERUN), nodes, order, limits)
    task_params = _params(conf, "task_params", roles)
    _check_blocks(task_params)
    return Plan(
        dag=_mapping(dag, "dag"),
        config=conf,
        nodes=MappingProxyType(nodes),
        order=order,
        initiator=NodeId(initiator_node),
        initiator_role=str(initiator.get("role", "")),
        roles=MappingProxyType(roles),
        scheduler=NodeId(scheduler),
        sync=SyncType(sync),
        rerun_of=rerun_of,
        reused=reused,
        _task_params=task_params,
        _job_params=job_params,
    )


def _rerun(
    value: object, nodes: Mapping[TaskName, Node], order: Iterable[TaskName], limits: Limits
) -> tuple[JobId, frozenset[TaskName]]:
    """job_params.common.rerun, an extension of ours: {"job_id": ..., "tasks": [...]}."""
    where = f"config.job_params.common.{RERUN}"
    if value is None:
        return JobId(""), frozenset()
    given = _mapping(value, where)
    job_id = safe_id(given.get("job_id"), f"{where}.job_id", limits)
    names = _list(given.get("tasks"), f"{where}.tasks", limits.dag_components)
    reused = frozenset(TaskName(name) for name in names if isinstance(name, str))
    for name in names:
        if name not in nodes:
            raise DagError(f"{where}.tasks", f"there is no component named {str(name)[:64]!r}")
    for name in order:
        for edge in nodes[name].inputs:
            if name in reused and edge.producer not in reused:
                raise DagError(f"{where}.tasks", f"{name} reads {edge.producer}, which is run again")
    return JobId(job_id), reused


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise DagError(where, "missing or not an object")
    return value


def _list(value: object, where: str, most: int) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise DagError(where, "not an array")
    if len(value) > most:
        raise DagError(where, f"more than {most} entries")
    return value


def _text(item: Mapping[str, Any], key: str, where: str, pattern: re.Pattern[str] | None = None) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value or len(value) > 128 or not value.isprintable():
        raise DagError(f"{where}.{key}", "missing or not a short text")
    if pattern is not None and not pattern.fullmatch(value):
        raise DagError(f"{where}.{key}", f"{value!r} is not usable as a name")
    return value


def _nodes(dag: Mapping[str, Any], limits: Limits) -> dict[TaskName, Node]:
    components = _list(dag.get("components"), "dag.components", limits.dag_components)
    if not components:
        raise DagError("dag.components", "must hold at least one component")
    nodes: dict[TaskName, Node] = {}
    edges = 0
    for index, raw in enumerate(components):
        where = f"dag.components[{index}]"
        item = _mapping(raw, where)
        name = TaskName(_text(item, "name", where, _NAME))
        if name in nodes:
            raise DagError(f"{where}.name", f"{name!r} appears twice")
        ref = ComponentRef(*(_text(item, key, where) for key in ("componentName", "provider", "version")))
        inputs = tuple(
            _edge(i, f"{where}.input[{n}]")
            for n, i in enumerate(_list(item.get("input"), f"{where}.input", limits.dag_edges))
        )
        edges += len(inputs)
        if edges > limits.dag_edges:
            raise DagError("dag.components", f"more than {limits.dag_edges} inputs in all")
        outputs = _outputs(item, where, limits)
        nodes[name] = Node(name, index, ref, inputs, outputs)
    for node in nodes.values():
        for n, edge in enumerate(node.inputs):
            _check_edge(edge, nodes, f"dag.components[{node.index}].input[{n}]")
    return nodes


def _edge(raw: object, where: str) -> Edge:
    item = _mapping(raw, where)
    producer, dot, output = _text(item, "key", where).partition(".")
    if not dot or "." in output or not _NAME.fullmatch(producer) or not _NAME.fullmatch(output):
        raise DagError(f"{where}.key", "must be <producer name>.<output key>")
    return Edge(TaskName(producer), output, _text(item, "type", where))


def _outputs(item: Mapping[str, Any], where: str, limits: Limits) -> tuple[Output, ...]:
    found: dict[str, Output] = {}
    for n, raw in enumerate(_list(item.get("output"), f"{where}.output", limits.dag_edges)):
        place = f"{where}.output[{n}]"
        output = _mapping(raw, place)
        key = _text(output, "key", place, _NAME)
        if key in found:
            raise DagError(f"{place}.key", f"{key!r} appears twice")
        found[key] = Output(key, _text(output, "type", place))
    return tuple(found.values())


def _check_edge(edge: Edge, nodes: Mapping[TaskName, Node], where: str) -> None:
    producer = nodes.get(edge.producer)
    if producer is None:
        raise DagError(f"{where}.key", f"there is no component named {edge.producer!r}")
    output = next((output for output in producer.outputs if output.key == edge.output), None)
    if output is None:
        raise DagError(f"{where}.key", f"{edge.producer!r} has no output {edge.output!r}")
    if _class(output.type) != _class(edge.type):
        raise DagError(
            f"{where}.type", f"{edge.type!r} is asked for, but {edge.producer}.{edge.output} is {output.type!r}"
        )


def _order(nodes: Mapping[TaskName, Node]) -> tuple[TaskName, ...]:
    """Names with producers first, otherwise in the order of the DAG; raises DagError naming a cycle."""
    waiting = {name: {edge.producer for edge in node.inputs} for name, node in nodes.items()}
    consumers: dict[TaskName, list[TaskName]] = {name: [] for name in nodes}
    for name, producers in waiting.items():
        for producer in producers:
            consumers[producer].append(name)
    free = [name for name, producers in waiting.items() if not producers]
    order: list[TaskName] = []
    while free:
        name = free.pop(0)
        order.append(name)
        for consumer in consumers[name]:
            waiting[consumer].discard(name)
            if not waiting[consumer]:
                free.append(consumer)
    if len(order) < len(nodes):
        raise DagError("dag.components", f"cycle: {' -> '.join(_cycle({n: p for n, p in waiting.items() if p}))}")
    return tuple(order)


def _cycle(waiting: Mapping[TaskName, set[TaskName]]) -> list[TaskName]:
    path = [next(iter(waiting))]
    while True:
        following = min(waiting[path[-1]])
        if following in path:
            return [*path[path.index(following) :], following][::-1]
        path.append(following)


def _roles(conf: Mapping[str, Any], limits: Limits) -> dict[str, tuple[NodeId, ...]]:
    roles: dict[str, tuple[NodeId, ...]] = {}
    for role, raw in _mapping(conf.get("role"), "config.role").items():
        # `common` stands for all parties in the parameters.
        if not _ROLE.fullmatch(role) or role == "common":
            raise DagError("config.role", f"{role[:40]!r} is not usable as a role")
        nodes = _list(raw, f"config.role.{role}", limits.parties)
        for i, node in enumerate(nodes):
            if not isinstance(node, str) or not _NODE.fullmatch(node):
                raise DagError(f"config.role.{role}[{i}]", "not a node id")
        if nodes:
            roles[role] = tuple(NodeId(node) for node in nodes)
    parties = sum(len(nodes) for nodes in roles.values())
    if not 0 < parties <= limits.parties:
        raise DagError("config.role", f"must name 1 to {limits.parties} parties, not {parties}")
    return roles


def _params(conf: Mapping[str, Any], member: str, roles: Mapping[str, tuple[NodeId, ...]]) -> dict[str, Any]:
    """Blocks of job_params or task_params: `common` and per role index -> object; absent or null ones are empty."""
    raw = conf.get(member)
    given = {} if raw is None else _mapping(raw, f"config.{member}")
    found: dict[str, Any] = {"common": {}}
    for role, value in given.items():
        if value is None or (role != "common" and role not in roles):
            continue
        block = _mapping(value, f"config.{member}.{role}")
        if role != "common":
            for index, part in block.items():
                _mapping(part, f"config.{member}.{role}.{index}")
        found[role] = dict(block)
    return found


def _check_blocks(task_params: Mapping[str, Any]) -> None:
    """Every node's block is an object."""
    for role, block in task_params.items():
        for index, part in {"": block}.items() if role == "common" else block.items():
            where = f"config.task_params.{role}" + (f".{index}" if index else "")
            for name, value in part.items():
                _mapping(value, f"{where}.{name}")


# --- the plan against the self-descriptions ---------------------------------------------------------------------------


def problems(plan: Plan, lookup: Lookup, *, parties: Iterable[Party] | None = None) -> list[Problem]:
    """Everything that keeps the job from running, as far as descriptions and parameters tell; [] if nothing.

    parties: whose parameters are checked; all where None. A participant checks its own, the initiator all.
    """
    checked = plan.parties if parties is None else tuple(parties)
    found: list[Problem] = []
    for name in plan.order:
        node = plan.nodes[name]
        where = f"dag.components[{node.index}]"
        description = lookup(node.component)
        if description is None:
            ref = node.component
            message = f"component {ref.name} {ref.version} of {ref.provider} is not registered here"
            found.append(Problem(where, message, Kind.COMPONENT_UNKNOWN))
            continue
        running = plan.parties_of(name, lookup)
        if not running:
            roles = ", ".join(description.role_list)
            found.append(Problem(where, f"{name}: no party of the job has a role it supports ({roles})"))
        found += _reach(plan, node, running, lookup)
        found += _ports(plan, name, description)
        found += [p for party in running if party in checked for p in _values(plan, name, party, description)]
    return found


def _reach(plan: Plan, node: Node, running: Iterable[Party], lookup: Lookup) -> Iterable[Problem]:
    """Artifacts stay with the party that wrote them, so a consumer must have run the producer, too."""
    for n, edge in enumerate(node.inputs):
        missing = [p.name for p in running if p not in plan.parties_of(edge.producer, lookup)]
        if missing:
            where = f"dag.components[{node.index}].input[{n}]"
            yield Problem(where, f"{', '.join(missing)} would need {edge.producer}, which does not run there")


def _ports(plan: Plan, name: TaskName, description: Description) -> Iterable[Problem]:
    try:
        plan.bind(name, description)
    except DagError as error:
        yield Problem(error.where, error.problem)


def _values(plan: Plan, name: TaskName, party: Party, description: Description) -> Iterable[Problem]:
    try:
        description.resolve_parameters(plan.params(party, name))
    except ParameterError as error:
        yield Problem(f"config.task_params.{party.role}.{party.index}.{name}", str(error))
