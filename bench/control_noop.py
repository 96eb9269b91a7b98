"""A component that does nothing: what is left of a task is what every task costs. `python -m bench.control_noop`."""

import json
import sys
from typing import Any

from gateway.sdk.component import Task, run
from specs.description import parse_description

NAME, PROVIDER, VERSION, PORT = "noop", "bench", "1.0.0", "report0"
_PORT = {"description": "", "dataFormat": ["json"], "category": "report"}
DESCRIPTION: dict[str, Any] = {
    "componentName": NAME, "title": NAME, "provider": PROVIDER, "version": VERSION, "description": "does nothing",
    "roleList": ["guest", "host"], "storageEngine": ["file"], "inputParam": [],
    "inputData": [{"name": "before", **_PORT}], "outputData": [{"name": PORT, **_PORT}],
    "result": [{"resultCode": "0", "resultMessage": "ok"}],
}  # fmt: skip


def body(task: Task) -> None:
    task.write_json(PORT, {})


if __name__ == "__main__":
    sys.exit(run(parse_description(json.dumps(DESCRIPTION)), body))
