"""Component `psi`: the rows whose ids both parties hold, in one common order at both."""

import os
import sys

from accel import registry
from gateway.errors import Kind, Refused
from gateway.operators.psi import EcdhPsi, PsiResult, normalised
from gateway.sdk.component import Task, run
from gateway.sdk.drive import drive
from gateway.sdk.lines import ascending
from gateway.sdk.result import Code, ComponentError
from specs.description import builtin_description


def body(task: Task) -> None:
    """Intersect; refuse duplicated ids before anything is sent and an empty intersection after."""
    with task.link() as link:  # from here on the partner is told of any mistake, and need not wait
        table = task.lines("train_data", task.parameters["id"])
        try:
            forced, threads = os.environ.get("INTERCONN_ACCEL") or None, task.environment.threads
            mask_points = registry.x25519(forced, threads=threads).mask_points
            digest = registry.digest("sha256", forced, threads=threads).digest
            ids, partner = normalised(table.keys), task.partner()
            party = EcdhPsi(partner=partner, ids=ids, mask_points=mask_points, digest=digest, random=os.urandom)
        except registry.BackendRefused as e:
            raise ComponentError(Code.BAD_INPUT, str(e)) from e
        except Refused as e:
            code = Code.DUPLICATE_IDS if e.kind is Kind.CONFLICT else Code.BAD_INPUT
            raise ComponentError(code, f"input train_data, column {task.parameters['id']!r}: {e}") from e
        result: PsiResult = drive(party, link, patience=task.patience(), progress=task.output.progress)
        if not len(result.rows):
            raise ComponentError(Code.EMPTY_INTERSECTION, "the parties have no id in common")
    # Both know the common ids now. Their order, unlike that of the masked points, is the same in every run, so that a
    # split with a fixed seed is reproducible.
    order = ascending(ids, result.rows)
    count = task.write_lines("data0", table, order, alignment=result.alignment.hex())
    report = {"own_rows": len(ids), "partner_rows": result.partner_count, "intersection_size": count}
    task.write_json("report0", {"component": "psi", "party": task.party, **report})
    task.output.log(f"{count} of {len(ids)} rows are common with {task.partner()}'s {result.partner_count}")


if __name__ == "__main__":
    sys.exit(run(builtin_description("psi"), body))
