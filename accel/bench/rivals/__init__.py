"""The rivals that are packages of others, each in a process of its own: some cannot live beside this project's own
dependencies, and phe is GPL, so that nothing of ours is linked with it.

A rival NAME is a script `with_NAME.py` here, run by the interpreter of an environment that has the package: the one
that was given, else this one if the package is installed in it. `serve.py` speaks for it: at the start it writes
`ready LABEL`; then each line that it reads is the name of a job, which is done once and answered by `done UNITS`. A
line `failed WHY` may come instead of either. The jobs' names are those that the rows ask for.
"""

import importlib.util
import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from accel.bench.measure import timed

PACKAGES: Final[Mapping[str, tuple[str, str]]] = {
    "phe": ("phe", "phe"),
    "sf-heu": ("heu", "sf-heu 'numpy<2' 'protobuf<5'"),
    "fate-utils": ("fate_utils", "fate-utils 'numpy<2'"),
    "openmined-psi": ("private_set_intersection", "openmined-psi"),
    "flwr": ("flwr", "flwr"),
}
"""Name, as on PyPI: the module that it brings, and what pip installs it by."""
START_SECONDS: Final = 120.0
JOB_SECONDS: Final = 600.0
GRACE_SECONDS: Final = 5.0
_LONGEST_LINE: Final = 4096


class RivalFailed(RuntimeError):
    """A rival does not start, does not answer, or cannot do a job; the text says which and why."""


class Rival:
    """One running rival."""

    def __init__(self, name: str, command: Sequence[str], *, start_seconds: float = START_SECONDS) -> None:
        """Raises RivalFailed unless it is ready in time. One thread: its pools see the cores of its caller."""
        self.name = name
        self._rest = b""
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"},
            )  # fmt: skip
        except OSError as error:
            raise RivalFailed(f"{name}: cannot start {command[0]}: {error.strerror}") from error
        try:
            self.label = self._expect("ready", start_seconds)
        except RivalFailed:
            self.close()
            raise

    def job(self, job: str, *, kind: str = "") -> "RivalJob":
        """A contestant; kind: what is said of it behind the label."""
        return RivalJob(f"{self.label} {kind}".rstrip(), self, job)

    def do(self, job: str) -> int:
        """Does it once; the units of work. Raises RivalFailed."""
        assert self._process.stdin is not None  # noqa: S101  # it is a pipe
        try:
            self._process.stdin.write(job.encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise RivalFailed(f"{self.name}: has ended") from error
        units = self._expect("done", JOB_SECONDS)
        if not (units.isascii() and units.isdigit() and int(units) > 0):
            raise RivalFailed(f"{self.name}: {job}: answers something else than units of work")
        return int(units)

    def close(self) -> None:
        """Ends the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # it was gone already
                    pipe.close()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _expect(self, word: str, seconds: float) -> str:
        line = self._line(seconds)
        found, _, rest = line.partition(" ")
        if found == "failed":
            raise RivalFailed(f"{self.name}: {rest}")
        if found != word or not rest:
            raise RivalFailed(f"{self.name}: does not speak the protocol of the benchmark")
        return rest

    def _line(self, seconds: float) -> str:
        assert self._process.stdout is not None  # noqa: S101  # it is a pipe
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._rest:
            if not select.select([pipe], [], [], seconds)[0]:
                raise RivalFailed(f"{self.name}: no answer in {seconds:.0f} s")
            more = os.read(pipe, _LONGEST_LINE)
            if not more:
                raise RivalFailed(f"{self.name}: has ended")
            self._rest += more
            if len(self._rest) > _LONGEST_LINE:
                raise RivalFailed(f"{self.name}: answers too much")
        line, _, self._rest = self._rest.partition(b"\n")
        return "".join(letter if letter.isprintable() else "?" for letter in line.decode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class RivalJob:
    """A job of a rival as a contestant of a row; the time of the pipe, some 50 us a job, counts as the rival's."""

    name: str
    rival: Rival
    job: str

    def rate(self, seconds: float) -> float:
        return timed(lambda: self.rival.do(self.job), seconds)


class Rivals:
    """All rivals of a run; a process is started when the first row asks for it."""

    def __init__(self, interpreters: Sequence[tuple[str, str]] = ()) -> None:
        """interpreters: (name of PACKAGES, path of a Python); a name may come several times, for several versions."""
        self._interpreters = {name: [python for given, python in interpreters if given == name] for name in PACKAGES}
        self._running: dict[str, list[Rival]] = {}
        self.absent: dict[str, str] = {}
        """Name, and why it is not here or was left out."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for rivals in self._running.values():
            for rival in rivals:
                rival.close()

    @property
    def running(self) -> frozenset[str]:
        """Names of those that run."""
        return frozenset(name for name, rivals in self._running.items() if rivals)

    @property
    def labels(self) -> list[str]:
        """Of those that run."""
        return [rival.label for rivals in self._running.values() for rival in rivals]

    def jobs(self, name: str, job: str, *, kind: str = "") -> list[RivalJob]:
        """The job by each version of a rival that is here; none and a line in `absent` if there is none."""
        if name not in self._running:
            self._running[name] = self._start(name)
        return [rival.job(job, kind=kind) for rival in self._running[name]]

    def drop(self, name: str, why: str) -> None:
        """It failed: later rows do without it."""
        for rival in self._running.get(name, []):
            rival.close()
        self._running[name] = []
        self.absent[name] = why

    def _start(self, name: str) -> list[Rival]:
        module, arguments = PACKAGES[name]
        pythons = self._interpreters[name]
        if not pythons and importlib.util.find_spec(module) is not None:
            pythons = [sys.executable]
        if not pythons:
            self.absent[name] = (
                f"not installed: pip install {arguments}, here or in an environment whose Python is given by "
                f"--rival {name}=PYTHON"
            )
        found = []
        for python in pythons:
            try:
                found.append(Rival(name, [python, str(Path(__file__).with_name("serve.py")), name]))
            except RivalFailed as failure:
                self.absent[name] = str(failure)
        return found
