"""Starting, timing and ending the child processes."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Child:
    process: subprocess.Popen[str]

    def cpu(self) -> float:
        """Seconds of processor time, user and system, so far."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:  # noqa: PTH123  # a kernel table
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def result(self, timeout: float) -> dict[str, Any]:
        out, _ = self.process.communicate(timeout=timeout)
        if self.process.returncode:
            raise RuntimeError(f"{self.process.args!r} ended with {self.process.returncode}")
        return json.loads(out) if out.strip() else {}

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()


def start(role: str, loop: str, **config: Any) -> Child:
    """Returns once the child has said that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.spike.role", role, loop, json.dumps(config)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        process.kill()
        raise RuntimeError(f"{role} did not start: {config}")
    return Child(process)


def stop_all(children: list[Child]) -> None:
    for child in children:
        child.stop()
