"""Breaks of the requirements of part 1, for tests/mutations.py: file, old text, new text."""

from collections.abc import Mapping, Sequence
from typing import Final

_ROUTES: Final = "specs/routes.py"
_BODIES: Final = "specs/schemas/management.json"
_ERRORS: Final = "gateway/errors.py"
_TABLE: Final = "gateway/mgmt_plane/core/approval.py"
_MESSAGES: Final = "gateway/mgmt_plane/core/messages.py"
_ACL: Final = "gateway/mgmt_plane/core/acl.py"
_PROFILE: Final = "gateway/mgmt_plane/core/profile.py"
_EDGE: Final = "gateway/mgmt_plane/rest/edge.py"
_HANDLERS: Final = "gateway/mgmt_plane/rest/handlers.py"
_CLIENT: Final = "gateway/mgmt_plane/rest/client.py"
_PARTNERS: Final = "gateway/mgmt_plane/service/partners.py"
_AUDITS: Final = "gateway/mgmt_plane/service/audits.py"
_DATASETS: Final = "gateway/mgmt_plane/service/datasets.py"
_PROJECTS: Final = "gateway/mgmt_plane/service/projects.py"
_GRANTS: Final = "gateway/mgmt_plane/service/grants.py"
_KEYS: Final = "gateway/mgmt_plane/service/keys.py"
_JOBS: Final = "gateway/mgmt_plane/service/jobs.py"
_SCHEDULE: Final = "gateway/mgmt_plane/service/schedule.py"

_ANY_WORD: Final = (
    _BODIES,
    '"decision": {\n   "enum": [\n    "APPROVED",\n    "REJECTED"\n   ]',
    '"decision": {\n   "enum": [\n    "APPROVED",\n    "REJECTED",\n    "TERMINATED"\n   ]',
    _TABLE,
    "_N.value: Event.REJECT}",
    "_N.value: Event.REJECT, _T.value: Event.TERMINATE}",
)
_TERMINATED: Final = "    await services.store.run(lambda tx: services.audits.terminated(tx, caller, kind, body))\n"
_CONFIRM: Final = '"node.contract.confirm": Route("1:3.2", "POST", f"{_M}/node/contract/confirm", Auth.CARRIED)'


def _kept(kind: str) -> tuple[str, str, str]:
    """terminate of this kind is answered and does nothing."""
    return (_HANDLERS, _TERMINATED, f"    if kind is not AuditKind.{kind}:\n    {_TERMINATED}")


def _not_required(member: str, *, before: str = "", after: str = "", indent: int = 4) -> tuple[str, str, str]:
    """A member that is required no more; before, after: what stands around it, for there are several of the name."""
    space = " " * indent

    def line(name: str) -> str:
        return f'{space}"{name}",\n' if name else ""

    if after:
        return (_BODIES, line(before) + line(member) + f'{space}"{after}"', line(before) + f'{space}"{after}"')
    start = f'{space}"{before}"'
    return (_BODIES, f'{start},\n{space}"{member}"\n', f"{start}\n")


MANAGEMENT: Final[Mapping[str, Sequence[Sequence[str]]]] = {
    "M-001": [(_ROUTES, 'f"{_M}/dataset/pub/list"', 'f"{_M}/dataset/list"')],
    "M-002": [
        (
            _EDGE,
            "            return dict(call.query)\n",
            "            return parse_object(call.request.body, self._limits)\n",
        ),
        (_EDGE, 'if kind != "application/json":', "if False:"),
    ],
    "M-003": [
        (_EDGE, '"msg": "success", "data": dict(data)}', '"msg": "success", **({"data": dict(data)} if data else {})}'),
        (_EDGE, '"msg": text, "data": {}}', '"msg": text}'),
        (_EDGE, '{"code": seen.ok, "msg": "success"', '{"code": str(seen.ok), "msg": "success"'),
    ],
    "M-004": [
        (_EDGE, '{"code": wire.code, "msg": text', '{"code": 0, "msg": text'),
        (_EDGE, "seen.ok, seen.dialect = dialect.ok, dialect", "seen.ok, seen.dialect = dialect.ok or 1, dialect"),
    ],
    "M-005": [(_ERRORS, "Kind.MALFORMED: Wire(200, 400,", "Kind.MALFORMED: Wire(400, 400,")],
    "M-006": [
        (_CLIENT, "names.TRACE: call.trace_id,", ""),
        (_CLIENT, "names.NONCE: nonce,", 'names.NONCE: "",'),
    ],
    "M-007": [
        (_CLIENT, "str(now // 1000 if call.dialect.sends_seconds else now)", "str(now * 1000)"),
        (_EDGE, "text.isdigit() and len(text) in (_MS_DIGITS, _S_DIGITS)", "text.isdigit() and len(text) >= _S_DIGITS"),
    ],
    "M-008": [(_CLIENT, "headers[names.CSRF] = self._entropy.token(8).hex()", 'headers[names.CSRF] = ""')],
    "M-009": [
        (_CLIENT, "if call.route.auth is not Auth.OPEN:", "if call.route.auth is Auth.CARRIED:"),
        (
            _ROUTES,
            '"project.query": Route("1:5.6", "GET", f"{_M}/project/query", Auth.SIGNED)',
            '"project.query": Route("1:5.6", "GET", f"{_M}/project/query", Auth.OPEN)',
        ),
    ],
    "M-010": [
        (_ROUTES, _CONFIRM, _CONFIRM.replace("CARRIED", "APPLICANT")),
        (_ROUTES, 'f"{_M}/node/contract/apply", Auth.CARRIED', 'f"{_M}/node/contract/apply", Auth.APPLICANT'),
        (_ROUTES, 'f"{_M}/node/query", Auth.OPEN', 'f"{_M}/node/query", Auth.SIGNED'),
    ],
    "M-011": [(_EDGE, "if head.target != self._identity.node_id and", "if not head.target and")],
    "M-012": [
        ("gateway/auth/replay.py", "if self._holds(digest):\n            raise", "if False:\n            raise"),
        (_CLIENT, "self._entropy.token(16).hex(), str(now //", "call.trace_id, str(now //"),
    ],
    "M-013": [
        ("gateway/auth/replay.py", "if abs(now - timestamp) > self._window:", "if now - timestamp > self._window:"),
        ("gateway/auth/replay.py", "if abs(now - timestamp) > self._window:", "if timestamp - now > self._window:"),
    ],
    "M-014": [
        ("gateway/auth/canonical.py", "hashlib.sha256(request.body).hexdigest()", 'hashlib.sha256(b"").hexdigest()')
    ],
    "M-015": [
        (
            _MESSAGES,
            "best_match(_validator(route)",
            'best_match(strict({**_document()[route], "additionalProperties": False})',
        ),
    ],
    "M-016": [("gateway/runtime/control_server.py", "{name.lower(): value for", "{str(name): value for")],
    "M-017": [
        ("gateway/auth/tokens.py", "Permit(urn, int(level), token)", "Permit(urn, level, token)"),
        ("gateway/auth/tokens.py", 'text.strip().rsplit("/", 2)', 'text.strip().split("/", 2)'),
        ("gateway/auth/tokens.py", 'text.split(",", limit)', 'text.split(";", limit)'),
    ],
    "M-018": [
        (_MESSAGES, '"page_size", "20"', '"page_size", "10"'),
        (_MESSAGES, '"page_num", "1"', '"page_num", "2"'),
        (_HANDLERS, "found[page.offset : page.offset + page.limit]", "found"),
        (_PROJECTS, "found[page.offset : page.offset + page.limit]", "found"),
    ],
    "M-019": [
        (_MESSAGES, "Page(0, limits.list_records if whole is None else whole, whole=True)", "Page(0, 20)"),
        (_MESSAGES, "if page.whole and total > len(records):", "if False:"),
    ],
    "M-020": [(_MESSAGES, '"total": total}', '"total": len(records)}')],
    "M-021": [(_HANDLERS, 'return {"contract_id": contract.contract_id}', 'return {"contract_id": ""}')],
    "M-022": [
        (_BODIES, '    "institution",\n    "name",\n    "node_id",\n', '    "institution",\n    "name",\n'),
        (_BODIES, '"node_id",\n    "system",\n    "system_version"\n', '"node_id",\n    "system"\n'),
    ],
    "M-023": [(_PARTNERS, 'f"ct-{self._entropy.token(16).hex()}"', "f\"ct-{body['node_id']}\"")],
    "M-024": [
        (_PARTNERS, 'if body["node_id"] != caller.node_id:', "if False:"),
        (_PARTNERS, 'peer_name=body["name"]', "peer_name=self.identity.name"),
    ],
    "M-025": [(_TABLE, "(None, Event.APPLY): (_A, ()),", "(None, Event.APPLY): (_Y, ()),")],
    "M-026": [
        _not_required("expired_time", before="auth_type", indent=5),
        (_BODIES, '     "auth_credential",\n     "auth_type",\n', '     "auth_credential",\n'),
        (_BODIES, '     "auth_credential",\n     "auth_type",\n', '     "auth_type",\n'),
    ],
    "M-027": [(_BODIES, '    "contract_id",\n    "status"\n', '    "contract_id",\n    "auth_type",\n    "status"\n')],
    "M-028": [_ANY_WORD],
    "M-029": [
        (_PARTNERS, 'status=state,\n            auth_type=body["auth_type"],', 'auth_type=body["auth_type"],'),
        (
            _PARTNERS,
            "if event is Event.REJECT:\n            return self._save(tx, old, replace(old, status=state))",
            "if event is Event.REJECT:\n            return old",
        ),
    ],
    "M-030": [
        (
            _TABLE,
            "(_T, Event.TERMINATE): (_T, ()),",
            "(_T, Event.TERMINATE): (_T, ()),\n    (_N, Event.TERMINATE): (_T, ()),",
        )
    ],
    "M-031": [
        (_TABLE, "    (_Y, Event.APPROVE): (_Y, ()),\n", ""),
        (
            _PARTNERS,
            "            if new != old:\n                raise",
            "            if False:\n                raise",
        ),
    ],
    "M-032": [
        (
            _PARTNERS,
            'return self._end(tx, self.of_caller(tx, caller, body["contract_id"]))',
            'return self.of_caller(tx, caller, body["contract_id"])',
        ),
        (
            _ROUTES,
            'f"{_M}/node/contract/terminate", Auth.APPLICANT',
            'f"{_M}/node/contract/terminate", Auth.LOCAL, Side.PLATFORM',
        ),
    ],
    "M-033": [
        (_PARTNERS, "if contract.peer_node_id != caller.node_id:", "if False:"),
        (_AUDITS, "audit.kind is kind and audit.peer_node_id == caller.node_id:", "audit.kind is kind:"),
        (_AUDITS, "old.kind is not kind or old.peer_node_id != caller.node_id:", "old.kind is not kind:"),
    ],
    "M-034": [
        (_PARTNERS, "and (contract.expired_time is None or now < contract.expired_time)", ""),
        (
            _PARTNERS,
            "return contract.status is ApprovalState.APPROVED and",
            "return contract.status in (ApprovalState.APPROVED, ApprovalState.TERMINATED) and",
        ),
        (_ROUTES, 'f"{_M}/node/contract/query", Auth.APPLICANT', 'f"{_M}/node/contract/query", Auth.SIGNED'),
    ],
    "M-035": [
        (_MESSAGES, "for each in fields(identity)}", 'for each in fields(identity) if each.name != "description"}'),
        (_ROUTES, 'f"{_M}/node/query", Auth.OPEN', 'f"{_M}/node/query", Auth.CARRIED'),
    ],
    "M-036": [(_HANDLERS, 'return {"status": "ok"}', 'return {"status": "up"}')],
    "M-037": [
        (_KEYS, 'auth_credential=body["auth_credential"],\n            tls_ca=credential.ca', "tls_ca=credential.ca"),
        (_KEYS, 'peer_address=check_address(body["address"])', "peer_address=old.peer_address"),
    ],
    "M-038": [(_ERRORS, "Kind.CONTRACT_UNKNOWN: Wire(200, 430,", "Kind.CONTRACT_UNKNOWN: Wire(200, 0,")],
    "M-039": [(_PARTNERS, "if status == ApprovalState.REJECTED.value:", "if False:")],
    "M-040": [
        (_DATASETS, "found = tx.select(Dataset, public=True, limit=page", "found = tx.select(Dataset, limit=page"),
        (_MESSAGES, '        "owner": dataset.owner,\n', ""),
    ],
    "M-041": [
        (
            _MESSAGES,
            "dict(each) for each in dataset.column_metas",
            "dict(each) for each in reversed(dataset.column_metas)",
        ),
        (
            _MESSAGES,
            "dict(each) for each in dataset.column_metas",
            '{k: v for k, v in each.items() if k != "data_type"} for each in dataset.column_metas',
        ),
    ],
    "M-042": [
        ("specs/states.py", 'CONTINUOUS = "CONTINUOUS"', 'CONTINUOUS = "NUMERIC"'),
        ("specs/states.py", 'DISCRETE = "DISCRETE"', 'DISCRETE = "CATEGORICAL"'),
    ],
    "M-043": [
        (_DATASETS, "if dataset is None or not (dataset.public or", "if dataset is None or not (True or"),
        (_DATASETS, "(dataset.public or self._grants.may_see(tx, user=user, dataset_id=dataset_id))", "dataset.public"),
    ],
    "M-044": [
        (_BODIES, '"additionalProperties": false', '"additionalProperties": true'),
        (
            _BODIES,
            '"COMPONENT": {\n       "$ref": "#/$defs/id_list"\n',
            '"TASK": {\n       "$ref": "#/$defs/id_list"\n',
        ),
        (_BODIES, '"NODE": {\n       "$ref": "#/$defs/id_list"\n', '"NODE": {\n       "type": ["array", "string"]\n'),
    ],
    "M-045": [_not_required("contract_id", before="audit_id", after="dataset_id")],
    "M-046": [
        (_ACL, '    "resource_inst_id": str,\n', ""),
        (_GRANTS, '            "request_inst_id": contract.peer_inst_id,\n', ""),
        (
            _AUDITS,
            "return self._move(tx, old, replace(old, status=state, permit=permit), effects)",
            "return self._move(tx, old, replace(old, status=state), effects)",
        ),
        (_AUDITS, "if permit is not None and not bare:", "if not bare:"),
    ],
    "M-047": [(_HANDLERS, 'return {"status": audit.status.value}', 'return {"status": audit.status.value.lower()}')],
    "M-048": [
        (_AUDITS, "            self._grants.revoke(tx, new.key())\n", "            pass\n"),
        (_ACL, "    if grant.revoked:\n", "    if False:\n"),
    ],
    "M-049": [
        (_ACL, "if grant.time_limit is not None and now > grant.time_limit:", "if False:"),
        (_ACL, "grant.used + grant.reserved >= grant.times_limit", "grant.used + grant.reserved > grant.times_limit"),
    ],
    "M-050": [
        _not_required("name", before="contract_id", after="project_id"),
        (_BODIES, '"ANONYM_FL"\n', '"ANONYM_FL",\n      "OTHER"\n'),
        (_BODIES, '"ANONYM_FL"\n', '"ANONYMOUS"\n'),
    ],
    "M-051": [
        (_TABLE, "(_A, Event.APPROVE): (_Y, (Effect.OPEN,)),", "(_A, Event.APPROVE): (_A, (Effect.OPEN,)),"),
        (_TABLE, "(_A, Event.REJECT): (_N, ()),", "(_A, Event.REJECT): (_T, ()),"),
    ],
    "M-052": [
        (
            _EDGE,
            "seen.ok, seen.dialect = dialect.ok, dialect",
            'seen.ok, seen.dialect = 200 if name == "project.audit.query" else dialect.ok, dialect',
        )
    ],
    "M-053": [(_PROJECTS, " if node_id in each.nodes]", "]")],
    "M-054": [
        (_MESSAGES, '"datasets": dict(project.datasets),', '"datasets": list(project.datasets),'),
        (_MESSAGES, "for each in project.nodes if each in nodes", "for each in project.nodes[:1] if each in nodes"),
    ],
    "M-055": [_kept("PROJECT")],
    "M-056": [
        (_HANDLERS, 'for name in ("category", "developer"))', 'for name in ("category",))'),
        (_HANDLERS, 'for name in ("category", "developer"))', 'for name in ("developer",))'),
        (
            _BODIES,
            '"component.list": {\n   "type": "object",\n   "required": [\n    "contract_id"\n   ]',
            '"component.list": {\n   "type": "object",\n   "required": []',
        ),
    ],
    "M-057": [
        (_MESSAGES, '"contract_Id": "contract_id", ', ""),
        (_MESSAGES, ', "contractId": "contract_id"', ""),
    ],
    "M-058": [
        _not_required("version", before="contract_id"),
        (_MESSAGES, '        "engine": engine,\n', ""),
        (_MESSAGES, '*about.get("inputData", ())]', "]"),
        (_MESSAGES, '"status": "ENABLED" if component.enabled else "DISABLED",', '"status": "ENABLED",'),
    ],
    "M-059": [(_MESSAGES, 'return f"{component.provider}.{component.name}"', "return component.name")],
    "M-060": [
        _not_required("dag", before="audit_id", after="flow_id"),
        (_BODIES, '"audit_id",\n    "dag",\n', '"audit_id",\n    "config",\n    "dag",\n'),
    ],
    "M-061": [_kept("FLOW")],
    "M-062": [
        _not_required("conf", before="dag"),
        (_BODIES, '"job_id",\n    "flow_id",\n    "name",\n', '"job_id",\n    "name",\n'),
    ],
    "M-063": [(_CLIENT, "        if data is None:\n            data = {}\n", "")],
    "M-064": [
        (_MESSAGES, "frozenset({AuditKind.JOB, AuditKind.MODEL})", "frozenset({AuditKind.MODEL})"),
        (_MESSAGES, 'return {"token": text}, True', "return None, False"),
        (_MESSAGES, 'if text.lstrip().startswith("{"):', "if False:"),
        (_BODIES, '    "object",\n    "string",\n    "null"\n', '    "object",\n    "null"\n'),
    ],
    "M-065": [
        (_JOBS, "if not self._book.rules.require_job_audit or not approvers:", "if True:"),
        (_JOBS, "if approved >= {node for node in others if asks_approval(tx, node)}:", "if approved:"),
        (
            _SCHEDULE,
            "if audit.status is not ApprovalState.APPROVED:\n                raise Refused(f",
            "if False:\n                raise Refused(f",
        ),
    ],
    "M-066": [
        (_JOBS, "        elif audit.status is ApprovalState.TERMINATED:\n", "        elif False:\n"),
        (_JOBS, "elif audit.status in {ApprovalState.TERMINATED, ApprovalState.REJECTED}:", "elif False:"),
        (_JOBS, "            audits.terminate(tx, audit.key())\n", "            pass\n"),
    ],
    "M-067": [(_ROUTES, 'if (kind, verb) != ("job", "query")', "if (kind, verb)")],
    "M-068": [_not_required("apply_project_id", after="audit_id")],
    "M-069": [
        (_MESSAGES, "frozenset({AuditKind.JOB, AuditKind.MODEL})", "frozenset({AuditKind.JOB})"),
        (_BODIES, '    "object",\n    "string",\n    "null"\n', '    "object",\n    "null"\n'),
        _kept("MODEL"),
    ],
    "M-070": [
        (
            _TABLE,
            "(_T, Event.TERMINATE): (_T, ()),",
            "(_T, Event.TERMINATE): (_T, ()),\n    (_T, Event.APPROVE): (_Y, ()),",
        )
    ],
    "M-071": [
        (
            _AUDITS,
            "        if known is not None:\n            return self._applied_again",
            "        if False:\n            return self._applied_again",
        ),
        (_AUDITS, "if known.kind is not kind or _text(known.body) != _text(body):", "if known.kind is not kind:"),
        (_TABLE, "(_Y, Event.APPLY): (_Y, (Effect.ANSWER_AGAIN,)),", "(_Y, Event.APPLY): (_Y, ()),"),
    ],
    "M-072": [
        (_PROFILE, "success: frozenset[int] = frozenset({0})", "success: frozenset[int] = frozenset({0, 200})"),
        (_PROFILE, 'Profile("lenient", success=frozenset({0, 200}),', 'Profile("lenient",'),
    ],
    "M-073": [
        _ANY_WORD,
        (_ERRORS, "Kind.NOT_FOUND: Wire(200, 404,", "Kind.NOT_FOUND: Wire(200, 0,"),
        (
            _AUDITS,
            'event = decision(body["status"])',
            'event = decision("APPROVED")',
            _BODIES,
            '"decision": {\n   "enum": [',
            '"decision": {\n   "enum": [\n    "APPLIED",',
        ),
    ],
    "M-074": [
        (_MESSAGES, 'renames["config"] = "conf"', "pass"),
        (_MESSAGES, 'renames["conf"] = "config"', "pass"),
        (_AUDITS, "made = dict(check(route, made))", "check(route, made)"),
    ],
    "M-075": [
        (_PARTNERS, "if is_valid(each, now) and each.tls_ca:", "if False:"),
        (_PARTNERS, "if Effect.OPEN in effects or Effect.CLOSE in effects:", "if Effect.CLOSE in effects:"),
        (_PARTNERS, "if Effect.OPEN in effects or Effect.CLOSE in effects:", "if Effect.OPEN in effects:"),
        (
            _PARTNERS,
            'tx.select(Contract, status=ApprovalState.APPROVED, order="-updated"):\n            if is',
            'tx.select(Contract, order="-updated"):\n            if is',
            _PARTNERS,
            "if is_valid(each, now) and each.tls_ca:",
            "if each.status is not ApprovalState.APPLIED and each.tls_ca:",
        ),
    ],
    "M-076": [(_ERRORS, "Kind.CONFLICT: Wire(200, 409,", "Kind.CONFLICT: Wire(200, 200,")],
}
