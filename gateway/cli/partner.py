"""`interconn partner`: cooperation contracts with other nodes."""

import argparse
import base64
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from gateway.cli import invite
from gateway.cli.audit import still
from gateway.cli.call import Call, Exit, UsageError, fingerprint, partner_id, pick, until
from gateway.cli.node import tell_expiring
from gateway.cli.parser import Group
from gateway.cli.show import grouped, when
from gateway.errors import Kind, Refused
from specs.states import ApprovalState

_NAMES: Final = ("contract_id", "peer_node_id", "peer_name")


def add(group: Group) -> None:
    group.command("list", listing, "contracts with other nodes and their state")
    show = group.command("show", show_one, "one contract with its fingerprint")
    _which(show)
    probe = group.command("probe", probing, "ask an address who it is and show its fingerprint; changes nothing")
    probe.add_argument("address", help="edge URL, for example https://partner.example:7304")
    probe.add_argument("--node-id", help="node expected there")
    probe.add_argument("--save-ca", type=Path, metavar="FILE", help="write the CA certificate that it presents")
    apply = group.command("apply", applying, "propose a contract to the node at an address")
    apply.add_argument("address", nargs="?", help="edge URL of the partner, where it sent no invitation")
    apply.add_argument("--invite", type=Path, metavar="FILE", help="the invitation that it sent")
    apply.add_argument("--node-id", help="node expected there; by default the one that it says it is")
    apply.add_argument("--fingerprint", type=fingerprint, metavar="HEX", help="the CA it must present")
    apply.add_argument("--ca-file", type=Path, metavar="FILE", help="its TLS CA, where it must be given by hand")
    apply.add_argument("--profile", help="the dialect it speaks, where that is known: legacy-1.0 ...")
    apply.add_argument("--days", type=int, help="validity that we propose")
    apply.add_argument("--description", help="words for the partner's administrator")
    _yes(apply)
    approve = group.command("approve", approving, "accept a partner's proposal, after comparing its fingerprint")
    _which(approve)
    approve.add_argument("--fingerprint", type=fingerprint, metavar="HEX", help="as read to you by the partner")
    approve.add_argument("--ca-file", type=Path, metavar="FILE", help="its TLS CA, where it signs with a bare key")
    approve.add_argument("--address", help="its edge URL, where its application (v1.0) does not say")
    approve.add_argument("--inst-id", help="its institution, likewise")
    approve.add_argument("--days", type=int, help="validity that we grant")
    _yes(approve)
    _which(group.command("reject", rejecting, "decline a partner's proposal"))
    ask = group.command("ask", asking, "read one of a partner's endpoints, for example component.list")
    ask.add_argument("partner", help="node id")
    ask.add_argument("route", help="name of the endpoint: node.health, dataset.pub.query, project.list ...")
    ask.add_argument("query", nargs="*", metavar="NAME=VALUE", help="its parameters; contract_id is filled in")
    dialect = group.command("set-profile", setting_profile, "say which dialect of the standard a partner speaks")
    _which(dialect)
    dialect.add_argument(
        "profile",
        help="strict-1.2, strict-1.2-rfc9421, strict-1.2-seconds, legacy-1.1, legacy-1.0, lenient, insecure_unsigned, "
        "fate-2.x, kuscia",
    )
    group.command("profiles", naming, "the dialects there are")
    _which(group.command("query", querying, "ask a partner how it sees a contract whose answer never came"))
    _which(group.command("doctor", doctoring, "ask a partner in several dialects and say which profile fits"))
    crl = group.command("crl", giving_crl, "keep the revocation list that a partner has sent")
    _which(crl)
    crl.add_argument("file", nargs="?", type=Path, help="the list, PEM or DER")
    crl.add_argument("--drop", action="store_true", help="instead, forget its lists")
    record = group.command("record", recording, "note a contract with a node that has no management layer")
    record.add_argument("node_id")
    record.add_argument("--profile", required=True, help="fate-2.x, kuscia or transport-only")
    record.add_argument("--inst-id", help="id of its institution")
    record.add_argument("--name")
    record.add_argument("--institution")
    record.add_argument("--address", help="https URL, where it has one")
    record.add_argument(
        "--transport-address",
        metavar="URL",
        help="of its transport module, where that is elsewhere: https://, or grpcs:// for gRPC",
    )
    record.add_argument("--ca-file", type=Path, metavar="FILE", help="its TLS CA")
    record.add_argument("--days", type=int, help="validity (365)")
    share = group.command(
        "share-logs", sharing, "show a partner when our tasks wrote what kind of line, never the text"
    )
    share.add_argument("partner", help="node id or name")
    share.add_argument("--job", help="in this job only (all jobs with the partner)")
    share.add_argument("--off", action="store_true", help="take the consent back")
    group.command("shared-logs", shared, "which partners may see the redacted log of our tasks")
    terminate = group.command("terminate", terminating, "end a contract, with everything granted under it")
    _which(terminate)
    _yes(terminate)


def _which(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("partner", help="contract id (or its beginning), node id, or name")


def _yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _find(call: Call, *, only: ApprovalState | None = None) -> Mapping[str, Any]:
    contracts = call.client().get("partners")
    fitting = [contract for contract in contracts if only in {None, contract["status"]}]
    return pick(fitting, call.partner, _NAMES, what=f"{only} contract" if only else "contract")


def listing(call: Call) -> Exit:
    contracts = call.client().get("partners")
    rows = [
        [
            contract["contract_id"],
            contract["peer_name"],
            contract["peer_node_id"],
            "we applied" if contract["direction"] == "OUT" else "they applied",
            contract["status"] + (" INSECURE: unsigned" if contract["profile"] == "insecure_unsigned" else ""),
            when(contract.get("expired_time")),
            contract["fingerprint"][:16],
        ]
        for contract in contracts
    ]
    columns = ("contract", "partner", "node", "direction", "state", "valid until", "fingerprint")

    def show() -> None:
        call.out.table(columns, rows, empty="No contracts yet.")
        with suppress(Refused):  # a gateway of an older version has no such list
            tell_expiring(call, [each for each in call.client().get("expiring") if each["peer"]])

    call.out.value(contracts, show)
    return Exit.OK


def show_one(call: Call) -> Exit:
    contract = _find(call)
    call.out.value(contract, lambda: _print(call, contract))
    return Exit.OK


def _print(call: Call, contract: Mapping[str, Any]) -> None:
    call.out.members(
        [
            ("contract", contract["contract_id"]),
            ("partner", contract["peer_name"]),
            ("institution", contract.get("peer_institution")),
            ("node", contract["peer_node_id"]),
            ("institution id", contract.get("peer_inst_id")),
            ("address", contract.get("peer_address")),
            *([("transport", contract["peer_transport"])] if contract.get("peer_transport") else []),
            ("system", f"{contract.get('peer_system') or ''} {contract.get('peer_system_version') or ''}".strip()),
            ("direction", "we applied" if contract["direction"] == "OUT" else "they applied"),
            ("state", contract["status"]),
            ("valid until", when(contract.get("expired_time"))),
            ("signature type", contract.get("auth_type")),
            ("proved its key", contract.get("proven")),
            ("profile", contract.get("profile")),
            ("description", contract.get("description")),
            ("fingerprint", grouped(contract["fingerprint"])),
        ]
    )


def probing(call: Call) -> Exit:
    seen = call.client().post("partners", "probe", address=call.address, node_id=call.node_id)
    if call.save_ca:
        call.save_ca.write_text(seen["ca_pem"], encoding="ascii")
    call.out.value(seen, lambda: _print_probe(call, seen))
    return Exit.OK


def _print_probe(call: Call, seen: Mapping[str, Any]) -> None:
    node = seen.get("node") or {}
    call.out.members(
        [
            ("address", call.address),
            ("name", node.get("name")),
            ("institution", node.get("institution")),
            ("node", node.get("node_id")),
            ("institution id", node.get("inst_id")),
            ("fingerprint", grouped(seen["fingerprint"])),
        ]
    )
    call.out.line("Compare the fingerprint with what the partner tells you over another channel.")


def applying(call: Call) -> Exit:
    if call.invite is not None:
        accepted = invite.accept(call)
        if accepted is None:
            call.out.line("Nothing was sent.")
            return Exit.FAILED
        call.out.value(accepted, lambda: _applied(call, accepted))
        return Exit.OK
    if call.address is None:
        raise UsageError("give --invite FILE, or the partner's address")
    client = call.client()
    expired_time = until(call.days)
    wanted, node_id = call.fingerprint, call.node_id
    if wanted is None or node_id is None:
        seen = client.post("partners", "probe", address=call.address, node_id=node_id)
        node_id = node_id or (seen.get("node") or {}).get("node_id")
        if node_id is None:
            raise UsageError("the node does not say who it is: give --node-id")
        if wanted is None:
            if not call.out.as_json:
                _print_probe(call, seen)
            if not call.agree("Is this the partner's fingerprint?", otherwise="--fingerprint HEX or --yes"):
                call.out.line("Nothing was sent.")
                return Exit.FAILED
            wanted = seen["fingerprint"]
    for known in client.get("partners"):
        if (known["peer_node_id"], known["direction"], known["status"]) == (node_id, "OUT", ApprovalState.APPLIED):
            raise Refused(
                f"{known['contract_id']} is still open there; wait for the answer, or withdraw it: "
                f"interconn partner terminate {known['contract_id']}",
                kind=Kind.CONFLICT,
            )
    contract = client.post(
        "partners",
        "apply",
        address=call.address,
        node_id=node_id,
        fingerprint=wanted,
        ca_pem=call.ca_file.read_text(encoding="ascii") if call.ca_file else None,
        expired_time=expired_time,
        description=call.description,
        profile=call.profile,
    )
    call.out.value(contract, lambda: _print(call, contract))
    return Exit.OK


def _applied(call: Call, contract: Mapping[str, Any]) -> None:
    _print(call, contract)
    call.out.line("The partner has your application and decides; `interconn partner list` shows when it has.")


def approving(call: Call) -> Exit:
    contract = _find(call, only=ApprovalState.APPLIED)
    if call.fingerprint is None:
        if not call.out.as_json:
            _print(call, contract)
        if not call.agree("Approve a partner with this fingerprint?", otherwise="--fingerprint HEX or --yes"):
            call.out.line("Nothing was changed.")
            return Exit.FAILED
    # The API compares as well: with --yes the fingerprint that was shown is what it must still be.
    return _decide(
        call,
        contract,
        "approve",
        fingerprint=call.fingerprint or contract["fingerprint"],
        expired_time=until(call.days),
        ca_pem=call.ca_file.read_text(encoding="ascii") if call.ca_file else None,
        address=call.address,
        inst_id=call.inst_id,
    )


def asking(call: Call) -> Exit:
    query = dict(each.partition("=")[::2] for each in call.query)
    data = call.client().post("partners", call.partner, "ask", route=call.route, query=query)
    call.out.value(data, lambda: call.out.line(json.dumps(data, indent=1, ensure_ascii=False)))
    return Exit.OK


def setting_profile(call: Call) -> Exit:
    node_id = _find(call)["peer_node_id"]
    changed = call.client().post("partners", node_id, "profile", profile=call.profile)
    call.out.value(changed, lambda: call.out.line(f"{node_id}: {call.profile}"))
    return Exit.OK


def naming(call: Call) -> Exit:
    names = call.client().get("profiles")
    call.out.value(names, lambda: call.out.line("\n".join(names)))
    return Exit.OK


def querying(call: Call) -> Exit:
    return _decide(call, _find(call), "query")


def doctoring(call: Call) -> Exit:
    """FAILED where no profile fits."""
    node_id = _find(call)["peer_node_id"]
    found = call.client().post("partners", node_id, "doctor")
    call.out.value(found, lambda: call.out.line("\n".join(found["words"])))
    return Exit.OK if found["fits"] else Exit.FAILED


def giving_crl(call: Call) -> Exit:
    if (call.file is None) is not bool(call.drop):
        raise UsageError("give the FILE of the list, or --drop")
    partner = _find(call)
    if call.drop:
        dropped = call.client().post("partners", partner["peer_node_id"], "crl", "drop")
        call.out.value(dropped, lambda: call.out.line(f"{partner['peer_name']}: {dropped['dropped']} lists dropped"))
        return Exit.OK
    text = base64.b64encode(call.file.read_bytes()).decode()
    taken = call.client().post("partners", partner["peer_node_id"], "crl", crl=text)
    words = f"{partner['peer_name']}: {taken['revoked']} revoked; good until {when(taken['next_update'])}"
    call.out.value(taken, lambda: call.out.line(words))
    return Exit.OK


def recording(call: Call) -> Exit:
    made = call.client().post(
        "partners",
        "record",
        node_id=call.node_id,
        profile=call.profile,
        inst_id=call.inst_id,
        name=call.name,
        institution=call.institution,
        address=call.address,
        transport_address=call.transport_address,
        ca_pem=call.ca_file.read_text(encoding="ascii") if call.ca_file else None,
        expired_time=until(call.days),
    )
    call.out.value(made, lambda: _print(call, made))
    return Exit.OK


def rejecting(call: Call) -> Exit:
    return _decide(call, _find(call, only=ApprovalState.APPLIED), "reject")


def terminating(call: Call) -> Exit:
    contract = _find(call)
    if not call.out.as_json:
        _print(call, contract)
    if not call.agree("End this contract and everything granted under it?", otherwise="--yes"):
        call.out.line("Nothing was changed.")
        return Exit.FAILED
    return _decide(call, contract, "terminate")


def _decide(call: Call, contract: Mapping[str, Any], verb: str, **body: Any) -> Exit:
    done = call.client().post("partners", contract["contract_id"], verb, **body)
    call.out.value(
        done, lambda: call.out.line(f"{contract['peer_name']}: {(done or {}).get('status', verb)}{still(done)}")
    )
    return Exit.OK


def sharing(call: Call) -> Exit:
    client = call.client()
    found = client.post("log-consents", node_id=partner_id(client, call.partner), job_id=call.job, allow=not call.off)
    call.out.value(found, lambda: _print_shared(call, found))
    return Exit.OK


def shared(call: Call) -> Exit:
    found = call.client().get("log-consents")
    call.out.value(found, lambda: _print_shared(call, found))
    return Exit.OK


def _print_shared(call: Call, found: Sequence[Mapping[str, Any]]) -> None:
    rows = [(each["node_id"], each["job_id"] or "all", when(each["created"])) for each in found]
    call.out.table(("partner", "job", "since"), rows, empty="No partner sees anything of our logs.")
