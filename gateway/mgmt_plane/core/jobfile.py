"""The short job file: what a person writes, expanded to the standard's DAG and Config (docs/jobfile.md).

The CLI reads TOML and hands over the same tree as JSON. `expand` chains steps by the types of their ports, fills in
versions and the parties' entries of task_params, and names the place of whatever it cannot use
(`step[2].params.seed`). Which components exist is the caller's `Catalogue`; ids are checked by nobody here.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.errors import ProtocolViolation
from gateway.mgmt_plane.core.dag import CLASSES
from specs.description import CONF_KEYS, Description, ParameterError
from specs.states import ROLES

DAG_VERSION: Final = "2.0"
CONFIG_VERSION: Final = "2.0.0"

_TOP: Final = frozenset(
    {
        "name",
        "project",
        "parties",
        "data",
        "step",
        "result_to",
        "deadlines",
        "resources",
        "sync_type",
        "flow",
        "durability",
    }
)
_STEP: Final = frozenset({"name", "component", "version", "provider", "params", "inputs", *ROLES})
_DEADLINES: Final = {
    "task_s": "task_timeout_s",
    "job_s": "job_timeout_s",
    "silence_s": "silence_s",
    "heartbeat_s": "heartbeat_s",
}
_RESOURCES: Final = frozenset({"cpu", "memory", "disk"})
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SOURCE: Final = "data"
"""Value of `inputs.<port>` that asks for the party's own dataset."""


class JobFileError(ProtocolViolation):
    """The job file cannot be used; the message begins with the place."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(f"{where}: {message}")
        self.where = where
        self.problem = message


Catalogue = Callable[[str], Sequence[Description]]
"""componentName -> every registered description of that name."""


@dataclass(frozen=True, slots=True)
class Expanded:
    """What a job file means."""

    name: str
    project_id: str
    flow_id: str
    dag: dict[str, Any] = field(repr=False)
    config: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Made:
    """One output of a step that came before: where it is, its type and the roles that have it."""

    step: str
    key: str
    type: str
    roles: frozenset[str]


def expand(body: Mapping[str, Any], *, own_node: str, catalogue: Catalogue) -> Expanded:
    """DAG and Config of a job file. own_node: the initiator, which must be one of the parties.

    Raises JobFileError with the place of the first thing that is wrong.
    """
    _only(body, _TOP, "")
    parties = _parties(body)
    initiator = next((role for role, nodes in parties.items() if own_node in nodes), None)
    if initiator is None:
        raise JobFileError("parties", f"this node ({own_node}) is none of them")
    data = _data(body, parties)
    steps = body.get("step")
    if not isinstance(steps, list) or not steps:
        raise JobFileError("step", "must be a list of at least one step")
    result_to = _result_to(body, parties)
    builder = _Builder(parties, data, result_to, catalogue)
    for index, step in enumerate(steps):
        builder.add(index, step)
    builder.finish()
    config = {
        "version": CONFIG_VERSION,
        "initiator": {"role": initiator, "node_id": own_node},
        "role": {role: list(parties.get(role, ())) for role in ROLES},
        "job_params": _job_params(body, parties),
        "task_params": builder.task_params,
    }
    name = _text(body, "name", "", required=True)
    project, flow = _text(body, "project", ""), _text(body, "flow", "")
    return Expanded(name, project, flow, {"version": DAG_VERSION, "components": builder.components}, config)


class _Builder:
    """Expands steps one after the other and remembers what they make."""

    def __init__(
        self,
        parties: Mapping[str, Sequence[str]],
        data: Mapping[str, Sequence[str]],
        result_to: Sequence[str] | None,
        catalogue: Catalogue,
    ) -> None:
        self._parties = parties
        self._data = data
        self._result_to = result_to
        self._catalogue = catalogue
        self._made: list[_Made] = []
        self._used_data = False
        self.components: list[dict[str, Any]] = []
        self.task_params: dict[str, Any] = {
            "common": {},
            **{role: {str(i): {} for i in range(len(nodes))} for role, nodes in parties.items()},
        }

    def add(self, index: int, step: object) -> None:
        where = f"step[{index}]"
        if not isinstance(step, Mapping):
            raise JobFileError(where, "must be a table")
        _only(step, _STEP, where)
        description = self._description(step, where)
        name = self._name(step, description, where)
        roles = frozenset(role for role in self._parties if role in description.role_list)
        if not roles:
            raise JobFileError(where, f"{description.component_name} supports only {', '.join(description.role_list)}")
        inputs, source = self._inputs(step, description, roles, where)
        outputs = [{"key": port.name, "type": port.category} for port in description.output_data.values()]
        self.components.append(
            {
                "name": name,
                "componentName": description.component_name,
                "provider": description.provider,
                "version": description.version,
                "input": inputs,
                "output": outputs,
            }
        )
        self._made += [_Made(name, output["key"], output["type"], roles) for output in outputs]
        self._params(step, description, name, roles, where)
        if source:
            self._sources(name, roles, where)

    def finish(self) -> None:
        if self._data and not self._used_data:
            raise JobFileError("data", "no step takes a dataset")

    def _description(self, step: Mapping[str, Any], where: str) -> Description:
        component = _text(step, "component", where, required=True)
        found = [
            description
            for description in self._catalogue(component)
            if step.get("version", description.version) == description.version
            and step.get("provider", description.provider) == description.provider
        ]
        if not found:
            wanted = " ".join(str(step[key]) for key in ("provider", "version") if key in step)
            raise JobFileError(f"{where}.component", f"{component} {wanted}".strip() + " is not registered here")
        if len({description.provider for description in found}) > 1:
            raise JobFileError(f"{where}.provider", f"several providers offer {component}; name one")
        return max(found, key=lambda description: _version(description.version))

    def _name(self, step: Mapping[str, Any], description: Description, where: str) -> str:
        taken = {component["name"] for component in self.components}
        name = _text(step, "name", where)
        if not name:
            number = 1 + sum(c["componentName"] == description.component_name for c in self.components)
            name = f"{description.component_name}_{number}"
        if not _NAME.fullmatch(name):
            raise JobFileError(f"{where}.name", "must be 1 to 64 letters, digits, '_' or '-'")
        if name in taken:
            raise JobFileError(f"{where}.name", f"{name!r} appears twice")
        return name

    def _inputs(
        self, step: Mapping[str, Any], description: Description, roles: frozenset[str], where: str
    ) -> tuple[list[dict[str, str]], bool]:
        """Edges in the order of the description's ports, and whether the step takes the parties' datasets."""
        asked = _table(step, "inputs", where)
        for unknown in asked:
            if unknown not in description.input_data:
                known = ", ".join(description.input_data) or "none"
                raise JobFileError(f"{where}.inputs.{unknown}", f"no such input; there are: {known}")
        edges: list[dict[str, str]] = []
        source = False
        for port in description.input_data.values():
            place = f"{where}.inputs.{port.name}"
            data = CLASSES.get(port.category) == "data"
            if asked.get(port.name) == _SOURCE or (
                port.name not in asked and data and not self._find(port.category, roles)
            ):
                if source or not data:
                    raise JobFileError(place, "one dataset per step, and only where data is expected")
                source = True
                continue
            made = self._asked(asked[port.name], place) if port.name in asked else self._find(port.category, roles)
            if made is None:
                raise JobFileError(place, f"no step before makes a {port.category} for {', '.join(sorted(roles))}")
            if CLASSES.get(made.type, made.type) != CLASSES.get(port.category, port.category):
                raise JobFileError(place, f"expects {port.category}, but {made.step}.{made.key} is {made.type}")
            if not roles <= made.roles:
                missing = ", ".join(sorted(roles - made.roles))
                raise JobFileError(place, f"{missing} would need {made.step}, which does not run there")
            edges.append({"key": f"{made.step}.{made.key}", "type": made.type})
        return edges, source

    def _asked(self, text: object, place: str) -> _Made:
        made = next((made for made in self._made if f"{made.step}.{made.key}" == text), None)
        if made is None:
            raise JobFileError(place, f"{str(text)[:80]!r} is not <step>.<output> of a step before, nor {_SOURCE!r}")
        return made

    def _find(self, category: str, roles: frozenset[str]) -> _Made | None:
        """The newest output of exactly this type, else of its class, that all these roles have."""
        usable = [made for made in reversed(self._made) if roles <= made.roles]
        exact = (made for made in usable if made.type == category)
        alike = (made for made in usable if CLASSES.get(made.type, made.type) == CLASSES.get(category, category))
        return next(exact, None) or next(alike, None)

    def _params(
        self, step: Mapping[str, Any], description: Description, name: str, roles: frozenset[str], where: str
    ) -> None:
        common = dict(_table(step, "params", where))
        if self._result_to is not None and "result_to" in description.input_params:
            common.setdefault("result_to", list(self._result_to))
        self._check(common, description, f"{where}.params")
        self.task_params["common"][name] = common
        for role in ROLES:
            own = _table(step, role, where)
            if own and role not in roles:
                raise JobFileError(f"{where}.{role}", f"{role} does not run {description.component_name}")
            self._check(own, description, f"{where}.{role}")
        for role in roles:
            # An (empty) entry for each party that runs the step, so that peers with the other rule agree (g.2).
            for block in self.task_params[role].values():
                block[name] = dict(_table(step, role, where))

    def _check(self, values: Mapping[str, Any], description: Description, where: str) -> None:
        for key, value in values.items():
            parameter = description.input_params.get(key)
            if parameter is None:
                reserved = " (datasets stand in [data])" if key in CONF_KEYS else ""
                raise JobFileError(f"{where}.{key}", f"not a parameter of {description.component_name}{reserved}")
            try:
                parameter.encode(value)
            except ParameterError as error:
                raise JobFileError(f"{where}.{key}", str(error)) from error

    def _sources(self, name: str, roles: Iterable[str], where: str) -> None:
        self._used_data = True
        for role in roles:
            datasets = self._data.get(role, ())
            for i, node in enumerate(self._parties[role]):
                if i >= len(datasets):
                    raise JobFileError(f"data.{role}", f"{where} needs a dataset of {role} {i}")
                # FATE reads dataset_id, Kuscia namespace and name: send all three (g.2).
                self.task_params[role][str(i)][name].update(
                    {"dataset_id": datasets[i], "namespace": node, "name": datasets[i]}
                )


def _parties(body: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    table = _table(body, "parties", "")
    _only(table, frozenset(ROLES), "parties")
    parties = {role: _texts(table[role], f"parties.{role}") for role in ROLES if role in table}
    if not any(parties.values()):
        raise JobFileError("parties", 'name at least one node, e.g. guest = "<node id>"')
    return {role: nodes for role, nodes in parties.items() if nodes}


def _data(body: Mapping[str, Any], parties: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    table = _table(body, "data", "")
    found = {}
    for role, value in table.items():
        if role not in parties:
            raise JobFileError(f"data.{role}", "no such party")
        found[role] = _texts(value, f"data.{role}")
        if len(found[role]) > len(parties[role]):
            raise JobFileError(f"data.{role}", "more datasets than parties")
    return found


def _result_to(body: Mapping[str, Any], parties: Mapping[str, Sequence[str]]) -> tuple[str, ...] | None:
    if "result_to" not in body:
        return None
    wanted = _texts(body["result_to"], "result_to")
    for party in wanted:
        if party.partition(".")[0] not in parties:
            raise JobFileError("result_to", f"{party!r} is no party of this job")
    return wanted


def _job_params(body: Mapping[str, Any], parties: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    common: dict[str, Any] = {"sync_type": _text(body, "sync_type", "") or "poll"}
    durability = _text(body, "durability", "")
    if durability:
        common["durability"] = durability
    deadlines = _table(body, "deadlines", "")
    _only(deadlines, frozenset(_DEADLINES), "deadlines")
    for key, value in deadlines.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise JobFileError(f"deadlines.{key}", "must be a positive number of seconds")
        common[_DEADLINES[key]] = value
    resources = _table(body, "resources", "")
    for role in resources:
        if role not in parties:
            raise JobFileError(f"resources.{role}", "no such party")
    blocks = {role: {str(i): _resources(resources, role) for i in range(len(nodes))} for role, nodes in parties.items()}
    return {"common": common, **blocks}


def _resources(resources: Mapping[str, Any], role: str) -> dict[str, Any]:
    given = _table(resources, role, "resources")
    _only(given, _RESOURCES, f"resources.{role}")
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise JobFileError(f"resources.{role}.{key}", "must be a number (-1: no limit)")
    return {"resources": {key: given.get(key, -1) for key in ("cpu", "memory", "disk")}}


def _only(table: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        place = f"{where}.{unknown[0]}" if where else unknown[0]
        raise JobFileError(place[:160], f"unknown key; there are: {', '.join(sorted(known))}")


def _table(table: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise JobFileError(f"{where}.{key}" if where else key, "must be a table")
    return value


def _text(table: Mapping[str, Any], key: str, where: str, *, required: bool = False) -> str:
    place = f"{where}.{key}" if where else key
    value = table.get(key, "")
    if not isinstance(value, str) or len(value) > 128 or not value.isprintable():
        raise JobFileError(place, "must be a text of at most 128 characters")
    if required and not value.strip():
        raise JobFileError(place, "missing")
    return value


def _texts(value: object, place: str) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(text, str) and 0 < len(text) <= 128 for text in values):
        raise JobFileError(place, "must be a text or a list of texts")
    return tuple(values)


def _version(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key of a version: numbers by value, words below numbers (1.0.0-rc < 1.0.0 is not attempted)."""
    return tuple((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"[.\-+_]", text))


def template() -> str:
    """A commented job file for a vertical logistic regression, as `interconn job new` prints it."""
    return _TEMPLATE


_TEMPLATE: Final = """\
# A job of two institutions: intersect, train a vertical logistic regression, score, evaluate.
# Check it with `interconn job validate FILE`, run it with `interconn job submit FILE`. All keys: docs/jobfile.md.
name = "loan-default"
project = ""                  # id of the project, as `interconn project list` shows it

# Who takes part: node ids. The guest holds the label.
[parties]
guest = "NODE-ID-OF-THE-BANK"
host = "NODE-ID-OF-THE-PARTNER"

# What each of them brings: dataset ids. The partner's must have been granted to you.
[data]
guest = "DATASET-ID"
host = "DATASET-ID"

# Steps run as soon as what they need is there. Inputs are chained by type: a step takes the newest output of the type
# it expects. Override with inputs = { train_data = "split_1.train" }; "data" stands for the party's own dataset.
[[step]]
component = "psi"             # newest registered version; or version = "1.0.0"
params = { id = "id" }        # for all parties
# host = { id = "customer" }  # for one role only

[[step]]
component = "split"
params = { test_fraction = 0.3, seed = "2026" }

[[step]]
component = "feature_encode"
params = { id = "id" }
guest = { label = "label" }

[[step]]
component = "hetero_lr"
params = { id = "id" }
guest = { label = "label" }

[[step]]
component = "hetero_lr_predict"
params = { id = "id", result_to = ["guest"] }   # the scores go to the label holder only
guest = { label = "label" }

[[step]]
component = "evaluation"

# Seconds; a job may ask for less than a node allows, not for more.
[deadlines]
task_s = 1800
job_s = 7200
silence_s = 60
"""
