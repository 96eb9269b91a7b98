"""Component `hetero_lr`: one logistic regression over the columns of two parties, without a third."""

import os
import sys
import time

from accel import registry
from accel.entropy import OsRandom
from gateway.components.agreement import require_agreement
from gateway.components.features import Features, read_features
from gateway.components.model import ModelPart
from gateway.components.rows import alignment
from gateway.errors import CallerError
from gateway.operators.lr.matrix import LrMatrix
from gateway.operators.lr.params import SCHEMA, LrParams
from gateway.operators.lr.train import Guest, Host, LrResult
from gateway.operators.party import Party
from gateway.sdk.component import Task, run
from gateway.sdk.drive import drive
from gateway.sdk.result import Code, ComponentError
from specs.description import builtin_description


def _party(task: Task, features: Features, params: LrParams) -> Party:
    """The side of the protocol that this role plays, with the fastest kernels (or the one INTERCONN_ACCEL names)."""
    forced = os.environ.get("INTERCONN_ACCEL") or None
    threads = task.environment.threads
    matrix, he = LrMatrix.from_dense(features.matrix), registry.additive_he(params.scheme, forced, threads=threads)
    ring, random, peer = registry.ring128(forced, threads=threads), OsRandom(), task.partner()
    if features.labels is not None:
        return Guest(matrix, features.labels, params, he=he, ring=ring, random=random, name=task.party, peer=peer)
    return Host(matrix, params, he=he, ring=ring, random=random, name=task.party, peer=peer)


def body(task: Task) -> None:
    """Train; each side keeps the weights of its own columns."""
    begun = time.monotonic()
    with task.link() as link:  # from here on the partner is told of any mistake, and need not wait
        table = task.table("train_data")
        if task.role == "guest" and not task.parameters["label"]:
            raise ComponentError(Code.BAD_INPUT, "parameter label: the guest must name its label column")
        features = read_features(task, table)
        try:
            params = LrParams.from_mapping({name: task.parameters[name] for name in SCHEMA["properties"]})
            party = _party(task, features, params)
        except (CallerError, registry.BackendRefused) as e:
            raise ComponentError(Code.BAD_INPUT, str(e)) from e
        facts = {"rows": str(len(table.rows)), "alignment": alignment(table.metadata), "params": params.digest().hex()}
        require_agreement(task, link, facts)
        result: LrResult = drive(party, link, patience=task.patience(), progress=task.output.progress)
    weights = tuple(result.weights.tolist())
    task.write_json("model0", ModelPart(task.party, features.names, weights, result.intercept, params).to_json())
    report = {"rows": result.rows, "features": len(features.names), "iterations": result.iterations}
    seconds = round(time.monotonic() - begun, 3)
    task.write_json("report0", {"component": "hetero_lr", "party": task.party, **report, "seconds": seconds})
    task.output.log(f"trained on {result.rows} rows, {len(features.names)} own features, in {seconds} s")


if __name__ == "__main__":
    sys.exit(run(builtin_description("hetero_lr"), body))
