"""A run as it could have been, for tests of the report: fixed numbers, nothing measured."""

from typing import Any

from gateway.demo import data
from gateway.demo.report import Facts, Party, Step

BANK, PAYMENT = "LX0000020000011", "LX0000020000021"
START = 1_795_000_000_000
TASKS = (
    ("psi_1", "psi", [], ["data0", "report0"]),
    ("split_1", "split", ["psi_1.data0"], ["train", "test", "report0"]),
    ("feature_encode_1", "feature_encode", ["split_1.train", "split_1.test"], ["train", "test", "model0", "report0"]),
    ("hetero_lr_1", "hetero_lr", ["feature_encode_1.train"], ["model0", "report0"]),
    ("hetero_lr_predict_1", "hetero_lr_predict", ["feature_encode_1.test", "hetero_lr_1.model0"], ["data0", "report0"]),
    ("evaluation_1", "evaluation", ["hetero_lr_predict_1.data0"], ["metric0", "report0"]),
)


def curve(bend: float) -> list[dict[str, float]]:
    points = []
    for step in range(51):
        fpr = step / 50
        tpr = fpr**bend
        points.append({"threshold": 1 - fpr, "fpr": fpr, "tpr": tpr, "ks": tpr - fpr})
    return points


def call(at: int, peer: str, route: str, *, code: int = 0) -> dict[str, Any]:
    return {"at": at, "event": "call.out", "process": "control", "peer": peer, "route": route, "code": code, "ms": 12.5}


def facts(**changes: Any) -> Facts:
    partnership, grants, job = START, START + 3_000, START + 5_000
    end = START + 61_000
    events = {
        BANK: [
            call(partnership + 10, PAYMENT, "node.query"),
            call(partnership + 30, PAYMENT, "node.contract.apply"),
            call(grants + 10, PAYMENT, "dataset.audit.apply"),
            call(job + 10, PAYMENT, "job.audit.apply"),
            call(job + 400, PAYMENT, "job.create"),
            *(call(job + 500 + 2_000 * n, PAYMENT, "task.poll", code=301 if n == 3 else 0) for n in range(20)),
        ],
        PAYMENT: [
            call(partnership + 900, BANK, "node.contract.confirm"),
            call(grants + 700, BANK, "dataset.audit.confirm"),
            call(job + 300, BANK, "job.audit.confirm"),
            {"at": job, "event": "job.state", "process": "control", "job_id": "job-x"},
        ],
    }
    shares = [
        {"task_name": name, "role": "guest", "started": job + 1_000 + 8_000 * n, "finished": job + 8_000 + 8_000 * n}
        for n, (name, *_) in enumerate(TASKS)
    ]
    known = {
        "started": START,
        "finished": end,
        "parties": (
            Party("bank", BANK, "JG0200000100000000", "guest", "bank", "Loans", data.BANK_COLUMNS, 900, "ab" * 32),
            Party(
                "payment",
                PAYMENT,
                "JG0200000200000000",
                "host",
                "payment",
                "People",
                data.PAYMENT_COLUMNS,
                900,
                "cd" * 32,
            ),
        ),
        "steps": (
            Step(
                "Partnership", "The bank applies, payment compares the fingerprint and approves.", partnership, grants
            ),
            Step("Grants", "The bank asks for payment's dataset.", grants, job),
            Step("Job", "Six tasks.", job, end, messages=True),
        ),
        "events": events,
        "job_id": "job-0123456789abcdef0123456789abcdef",
        "dag": {
            "components": [
                {
                    "name": name,
                    "componentName": component,
                    "input": [{"key": key, "type": "dataset"} for key in takes],
                    "output": [{"key": key, "type": "dataset"} for key in makes],
                }
                for name, component, takes, makes in TASKS
            ]
        },
        "tasks": [{"task_name": name, "task_id": f"task_{n:032d}"} for n, (name, *_) in enumerate(TASKS)],
        "shares": {"bank": shares, "payment": [dict(share, role="host") for share in shares[:-1]]},
        "intersection_size": 800,
        "metric": {
            "rows": 240,
            "positives": 72,
            "auc": 0.7821,
            "ks": 0.45,
            "curve": curve(0.35),
            "confusion": {
                "ks": {"true_positive": 50, "false_positive": 40, "false_negative": 22, "true_negative": 128}
            },
        },
        "weights": [(f"purpose={n} <b>", (-1) ** n * n / 100) for n in range(40)],
        "plaintext": {"auc": 0.7834, "ks": 0.46, "curve": curve(0.34)},
        "bank_only": {"auc": 0.7011, "ks": 0.31, "curve": curve(0.6)},
        "bytes_sent": {BANK: 3 << 20, PAYMENT: 200_000},
    }
    return Facts(**{**known, **changes})
