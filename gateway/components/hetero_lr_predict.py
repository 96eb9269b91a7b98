"""Component `hetero_lr_predict`: scores from a model whose parts lie at two parties; the guest alone gets them."""

import os
import sys

import numpy as np

from accel import registry
from accel.entropy import OsRandom
from gateway.components.agreement import require_agreement
from gateway.components.features import Features, read_features
from gateway.components.model import ModelPart
from gateway.components.rows import alignment
from gateway.errors import CallerError
from gateway.operators.lr.matrix import LrMatrix
from gateway.operators.lr.predict import Guest, Host, PredictResult
from gateway.operators.party import Party
from gateway.sdk.component import Task, run
from gateway.sdk.drive import drive
from gateway.sdk.result import Code, ComponentError
from specs.description import builtin_description


def _party(task: Task, features: Features, model: ModelPart) -> Party:
    """The side of the protocol that this role plays; the columns are put into the model's order."""
    if set(model.features) != set(features.names):
        raise ComponentError(Code.BAD_INPUT, "the columns are not those the model was trained on")
    order = [features.names.index(name) for name in model.features]
    matrix, weights, params = LrMatrix.from_dense(features.matrix[:, order]), np.array(model.weights), model.params
    forced, threads = os.environ.get("INTERCONN_ACCEL") or None, task.environment.threads
    he = registry.additive_he(params.scheme, forced, threads=threads)
    random, name, peer = OsRandom(), task.party, task.partner()
    if task.role == "guest":
        return Guest(matrix, weights, model.intercept, params, he=he, random=random, name=name, peer=peer)
    return Host(matrix, weights, params, he=he, random=random, name=name, peer=peer)


def body(task: Task) -> None:
    """Score the rows; who gets the result stands in the job's configuration and is checked, not assumed."""
    with task.link() as link:  # from here on the partner is told of any mistake, and need not wait
        if task.parameters["result_to"] != ["guest"]:
            raise ComponentError(Code.BAD_INPUT, 'parameter result_to: only ["guest"] is supported')
        table = task.table("test_data")
        features = read_features(task, table)
        model = ModelPart.from_json(task.json("model"))
        try:
            party = _party(task, features, model)
        except (CallerError, registry.BackendRefused) as e:
            raise ComponentError(Code.BAD_INPUT, str(e)) from e
        facts = {
            "rows": str(len(table.rows)),
            "alignment": alignment(table.metadata),
            "model parameters": model.params.digest().hex(),
        }
        require_agreement(task, link, facts)
        result: PredictResult = drive(party, link, patience=task.patience(), progress=task.output.progress)
    scores = [] if result.scores is None else result.scores.tolist()
    known = features.labels is not None
    at = table.columns.index(task.parameters["id"]) if task.parameters["id"] in table.columns else None
    columns = [*([] if at is None else [task.parameters["id"]]), "row", *(["label"] if known else []), "score"]
    labels = None if features.labels is None else features.labels.astype(int).tolist()
    rows = (
        [*([] if at is None else [table.rows[row][at]]), row, *([] if labels is None else [labels[row]]), repr(score)]
        for row, score in enumerate(scores)
    )
    task.write_table("data0", columns, rows, alignment=alignment(table.metadata))
    report = {"rows": result.rows, "scores_here": len(scores), "result_to": ["guest"]}
    task.write_json("report0", {"component": "hetero_lr_predict", "party": task.party, **report})
    task.output.log(f"{result.rows} rows scored, {len(scores)} scores here")


if __name__ == "__main__":
    sys.exit(run(builtin_description("hetero_lr_predict"), body))
