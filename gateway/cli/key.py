"""`interconn key`: this node's signing key and the keys of its partners."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.cli.call import Call, Exit, UsageError, fingerprint, pick
from gateway.cli.parser import Group
from gateway.cli.show import grouped, when

_NAMES: Final = ("contract_id", "peer_node_id", "peer_name")


def add(group: Group) -> None:
    group.command("show", showing, "this node's key, who knows it, and the partners' keys")
    rotate = group.command("rotate", rotating, "make a new signing key and tell every partner; the old one overlaps")
    rotate.add_argument("--tls", action="store_true", help="instead, the TLS certificate, at once")
    rotate.add_argument("--ca", action="store_true", help="the CA, and signing key and TLS certificate under it")
    rotate.add_argument("--key", metavar="URI", help="a key that you made: file:/path, or pkcs11: for one in a token")
    rotate.add_argument("--credential", type=Path, metavar="FILE", help="its chain or public key (PEM)")
    rotate.add_argument("--finish", action="store_true", help="with --ca: change over now, whoever has not allowed it")
    _yes(rotate)
    revoke = group.command("revoke", revoking, "the signing key is compromised: a new one at once, without overlap")
    revoke.add_argument("--partner", help="instead, end the overlap of a partner's previous key (contract, node, name)")
    revoke.add_argument("--tls", action="store_true", help="instead, the key of the TLS certificate is compromised")
    revoke.add_argument("--ca", action="store_true", help="the key of the CA is compromised, and all under it")
    _yes(revoke)
    crl = group.command("crl", writing_crl, "write this node's revocation list, for the partners")
    crl.add_argument("--out", dest="out_file", type=Path, required=True, metavar="FILE", help="where to write it (PEM)")
    crl.add_argument("--days", type=int, help="until when the next one follows (30)")
    allow = group.command("allow", allowing, "let a partner sign under a new CA, after comparing its fingerprint")
    allow.add_argument("partner", help="contract id (or its beginning), node id, or name")
    allow.add_argument("--fingerprint", type=fingerprint, metavar="HEX", help="as read to you by the partner")
    allow.add_argument("--ca-file", type=Path, metavar="FILE", help="its new TLS CA, where it signs with a bare key")
    _yes(allow)


def _yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _partner(call: Call) -> Mapping[str, Any]:
    return pick(call.client().get("keys")["partners"], call.partner, _NAMES, what="partner with a contract that holds")


def showing(call: Call) -> Exit:
    found = {**call.client().get("keys"), "tls": call.client().get("tls")}
    call.out.value(found, lambda: _print(call, found))
    return Exit.OK


def _shown(certificates: Sequence[Mapping[str, Any]]) -> str:
    made = next((each["created"] for each in certificates if each["shown"]), None)
    return "made before the first start" if made is None else f"made {when(made)}"


def _print(call: Call, found: Mapping[str, Any]) -> None:
    call.out.members(
        [
            ("signature type", found["auth_type"]),
            ("key", grouped(found["key_id"])),
            ("fingerprint", grouped(found["fingerprint"])),
            ("made", when(found["keys"][-1]["created"]) if found["keys"] else "before the first start"),
            ("TLS certificate", _shown(found["tls"]["certificates"])),
            ("new CA waits for", ", ".join(found["tls"]["waiting"])),
        ]
    )
    rows = [
        [
            partner["peer_name"],
            partner["peer_node_id"],
            "yes" if partner["told"] else f"not yet {partner['refusal']}".strip(),
            partner["fingerprint"][:16],
            when(partner["old_until"]) if partner["old_until"] else "",
            partner["ca_offered"][:16],
        ]
        for partner in found["partners"]
    ]
    columns = ("partner", "node", "knows our key", "its fingerprint", "its old key until", "wants to change to")
    call.out.table(columns, rows, empty="No partners yet.")
    for partner in found["partners"]:
        if partner["ca_offered"] and partner["ca_offered"] != partner["ca_allowed"]:
            name = partner["peer_name"]
            call.out.line(f"{name} has a new CA; compare its fingerprint, then: interconn key allow {name}")


def rotating(call: Call) -> Exit:
    if call.tls or call.ca:
        return _renew(call, "rotate", "and show it")
    if call.finish:
        raise UsageError("--finish goes with --ca")
    if not call.agree("Make a new signing key and tell every partner?", otherwise="--yes"):
        call.out.line("Nothing was changed.")
        return Exit.FAILED
    given = call.credential.read_text(encoding="ascii") if call.credential else None
    if (call.key is None) is not (given is None):
        raise UsageError("--key and --credential go together")
    return _made(call, call.client().post("keys", "rotate", key_uri=call.key, credential=given))


def revoking(call: Call) -> Exit:
    if call.partner:
        partner = _partner(call)
        if not call.agree(f"End the overlap of the previous key of {partner['peer_name']}?", otherwise="--yes"):
            call.out.line("Nothing was changed.")
            return Exit.FAILED
        done = call.client().post("partners", partner["contract_id"], "keys", "revoke")
        call.out.value(done, lambda: call.out.line(f"{partner['peer_name']}: only its newest key counts."))
        return Exit.OK
    if call.tls or call.ca:
        return _renew(call, "revoke", "and declare the one before compromised")
    if not call.agree("Declare every key before compromised and make a new one?", otherwise="--yes"):
        call.out.line("Nothing was changed.")
        return Exit.FAILED
    return _made(call, call.client().post("keys", "revoke"))


def _renew(call: Call, verb: str, words: str) -> Exit:
    if call.tls and call.ca:
        raise UsageError("give either --tls or --ca")
    if call.finish:
        done = call.client().post("tls", "finish")
        said = "The new CA is shown to everybody." if done["changed"] else "No new CA is on its way."
        call.out.value(done, lambda: call.out.line(said))
        return Exit.OK
    what = "CA" if call.ca else "TLS certificate"
    if not call.agree(f"Make a new {what} {words}?", otherwise="--yes"):
        call.out.line("Nothing was changed.")
        return Exit.FAILED
    made = call.client().post("tls", verb, ca=bool(call.ca))
    call.out.value(made, lambda: _tell_renewed(call, made))
    return Exit.OK


def _tell_renewed(call: Call, made: Mapping[str, Any]) -> None:
    if not made["new_ca"]:
        call.out.line(f"New TLS certificate {made['leaf'][:16]}; it is shown from now on.")
        return
    call.out.line("New CA. Its fingerprint, which every partner must compare and allow (interconn key allow):")
    call.out.line(f"    {grouped(made['ca'])}")
    if not made["shown"]:
        call.out.line("It is shown to all as soon as they have; see: interconn key show")


def _made(call: Call, made: Mapping[str, Any]) -> Exit:
    words = f"New key {made['key_id'][:16]}; partners are being told, see: interconn key show"
    call.out.value(made, lambda: call.out.line(words))
    return Exit.OK


def writing_crl(call: Call) -> Exit:
    made = call.client().post("keys", "crl", days=call.days)
    call.out_file.write_text(made["crl_pem"], encoding="ascii")
    words = f"Made {call.out_file} with {made['revoked']} revoked; send it to the partners before"
    call.out.value(made, lambda: call.out.line(f"{words} {when(made['next_update'])}."))
    return Exit.OK


def allowing(call: Call) -> Exit:
    partner = _partner(call)
    if call.ca_file is not None:
        pem = call.ca_file.read_text(encoding="ascii")
        done = call.client().post("partners", partner["contract_id"], "keys", "allow", ca_pem=pem)
        call.out.value(done, lambda: call.out.line(f"{partner['peer_name']}: its new CA counts from now on."))
        return Exit.OK
    wanted = call.fingerprint or partner["ca_offered"]
    if not wanted:
        call.out.line(f"{partner['peer_name']} has not asked for a change; give --fingerprint to allow one beforehand.")
        return Exit.FAILED
    if call.fingerprint is None:
        if not call.out.as_json:
            call.out.members([("partner", partner["peer_name"]), ("new fingerprint", grouped(wanted))])
        if not call.agree("Is this the partner's new fingerprint?", otherwise="--fingerprint HEX or --yes"):
            call.out.line("Nothing was changed.")
            return Exit.FAILED
    done = call.client().post("partners", partner["contract_id"], "keys", "allow", fingerprint=wanted)
    call.out.value(done, lambda: call.out.line(f"{partner['peer_name']}: allowed; it will repeat its request."))
    return Exit.OK
