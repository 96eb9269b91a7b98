"""The frame around a component: environment in, artifacts out, one final report, an exit code that agrees with it.

A component is `run(description, body)`; `body(task)` reads inputs, talks to partners and writes outputs. Lines on
stdout are the log; two kinds have a prefix for the node that started the process:

    @progress {"phase": ..., "done": n, "total": n, "unit": ..., "bytes": n, "eta_s": n}
                                            at most two a second, at least one while work goes on, the end of a phase
    @result {"code": "0", "message": "...", "party": "guest.0"}       the last line

Nothing here knows what any component computes. Importing this module loads no web framework, SQL or NumPy.
"""

import http.client
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TextIO, TypeVar
from urllib.parse import urlsplit

from gateway.operators.party import PartyName, Progress
from gateway.sdk import osx
from gateway.sdk.channel import Channel, Line
from gateway.sdk.drive import PART_BYTES, Link, Patience
from gateway.sdk.environment import Artifact, Environment, read_environment
from gateway.sdk.places import storage_secrets
from gateway.sdk.result import Code, ComponentError
from gateway.sdk.storage import CSV, Rows, Store, Table, open_store
from specs import headers
from specs.description import Description, ParameterError

if TYPE_CHECKING:
    from gateway.sdk.lines import Lines, Places

CALLBACK_PATH: Final = "/v1/platform/schedule/task/callback"
CALLBACK_ATTEMPTS: Final = 5
PROGRESS_SECONDS: Final = 0.5
TOTAL_SECONDS: Final = 86_400.0
WAIT_SECONDS: Final = 600.0
"""Limits of a component that has no parameters for them; those of the node end it earlier."""
MAX_BYTES: Final = 256 << 20

T = TypeVar("T")


class Output:
    """The component's stdout. Whatever is written, the task's secrets are masked (A-039)."""

    def __init__(
        self, stream: TextIO, secrets: Iterable[str] = (), *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._secrets = tuple(sorted({secret for secret in secrets if len(secret) >= 3}, key=len, reverse=True))
        self._clock = clock
        self._phase = ""
        self._begun = 0.0
        self._next = 0.0
        self._pending: Progress | None = None
        self._moved: Callable[[], int] = lambda: 0
        # The ticker writes, too.
        self._lock = threading.Lock()

    def count_bytes(self, moved: Callable[[], int]) -> None:
        """moved: bytes exchanged with the partners so far, told with every progress from now on."""
        self._moved = moved

    def log(self, text: str) -> None:
        """Write lines for people."""
        self._write(self._masked(text))

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _write(self, text: str) -> None:
        # A reader that went away must not turn a success that was reported into a failure.
        with suppress(OSError, ValueError):
            for line in text.splitlines():
                print(line, file=self._stream, flush=True)

    def record(self, prefix: str, value: Mapping[str, object]) -> None:
        """Write one line for the node that started the process. Masked before it becomes JSON: a secret may need
        escapes there, or be equal to a key.
        """
        shown = {key: self._masked(item) if isinstance(item, str) else item for key, item in value.items()}
        self._write(f"@{prefix} {json.dumps(shown, ensure_ascii=True)}")

    def progress(self, progress: Progress) -> None:
        """Report progress; kept for the next report within half a second of the last, unless a phase begins or ends."""
        with self._lock:
            now = self._clock()
            if progress.phase != self._phase:
                self._phase, self._begun = progress.phase, now
            elif now < self._next and progress.done < progress.total:
                self._pending = progress
                return
            self._report(progress, now)

    def tick(self) -> None:
        """Report what was kept back. A component in which nothing moves stays silent, so that a hang is noticed."""
        with self._lock:
            now = self._clock()
            if self._pending is not None and now >= self._next:
                self._report(self._pending, now)

    def _report(self, progress: Progress, now: float) -> None:
        self._pending, self._next = None, now + PROGRESS_SECONDS
        told: dict[str, object] = {
            "phase": progress.phase,
            "done": progress.done,
            "total": progress.total,
            "unit": progress.unit,
        }
        moved = self._moved()
        if moved:
            told["bytes"] = moved
        if 0 < progress.done <= progress.total:
            # As if it went on as it did so far in this phase.
            told["eta_s"] = round((now - self._begun) * (progress.total - progress.done) / progress.done, 1)
        self.record("progress", told)


class Meter:
    """Progress of one phase of a component's own work."""

    def __init__(self, output: Output, phase: str, total: int, unit: str) -> None:
        self._output = output
        self._now = Progress(phase, 0, total, unit)

    def advance(self, count: int = 1) -> None:
        """So much more is done."""
        self._now = replace(self._now, done=self._now.done + count)
        self._output.progress(self._now)

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The same items; each counts as done when the next one is asked for."""
        for item in items:
            yield item
            self.advance()


class Task:
    """What a component's body is given.

    parameters: typed by the self-description, defaults filled in; an absent optional one is None.
    """

    def __init__(
        self,
        environment: Environment,
        description: Description,
        output: Output,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._begun = clock()
        self.environment = environment
        self.description = description
        self.output = output
        self.parameters = _parameters(environment, description)
        self._store: Store = open_store(environment.storage)
        self._written: set[str] = set()

    @property
    def party(self) -> PartyName:
        return self.environment.party

    @property
    def role(self) -> str:
        return self.environment.role

    def partner(self) -> PartyName:
        """The one other party of a two-party component. Raises ComponentError when there is not exactly one."""
        peers = [peer for peer in self.environment.peers if peer.partition(".")[0] in self.description.role_list]
        if len(peers) != 1:
            raise ComponentError(Code.BAD_INPUT, f"{self._name} needs exactly one partner, not {len(peers)}")
        return peers[0]

    def phase(self, name: str, *, total: int, unit: str = "rows") -> Meter:
        """Begin a phase of so many units of work; how far it is goes to whoever watches the job."""
        self.output.progress(Progress(name, 0, total, unit))
        return Meter(self.output, name, total, unit)

    def rows(self, name: str) -> AbstractContextManager[Rows]:
        """An input table row by row, for tables that need not fit into memory. Raises ComponentError."""
        return self._store.rows(self._input(name))

    def read_bytes(self, name: str, *, limit: int = MAX_BYTES) -> bytes:
        """An input that is neither a table nor JSON, at most `limit` bytes. Raises ComponentError."""
        return self._store.read_bytes(self._input(name), limit=limit)

    def table(self, name: str) -> Table:
        """An input table. Raises ComponentError."""
        return self._store.read_table(self._input(name))

    def lines(self, name: str, column: str) -> "Lines":
        """An input table as lines, for components that look at one column only. Raises ComponentError."""
        return self._store.read_lines(self._input(name), column)

    def json(self, name: str) -> Any:
        """An input JSON artifact. Raises ComponentError."""
        return self._store.read_json(self._input(name))

    def write_table(
        self,
        name: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        file_type: str = CSV,
        **extra: object,
    ) -> int:
        """Write an output table; the number of its rows. file_type: csv or parquet; extra: keys of its metadata."""
        count = self._store.write_table(self._output(name), columns, rows, extra=extra, file_type=file_type)
        self._written.add(name)
        return count

    def write_lines(self, name: str, table: "Lines", rows: "Places", **extra: object) -> int:
        """Write these rows of an input as an output table; their number. extra: keys of its metadata."""
        count = self._store.write_lines(self._output(name), table, rows, extra=extra)
        self._written.add(name)
        return count

    def write_bytes(self, name: str, pieces: Iterable[bytes], *, file_type: str) -> None:
        """Write an output that is neither a table nor JSON, a model in a format of its own for example."""
        self._store.write_bytes(self._output(name), pieces, file_type=file_type)
        self._written.add(name)

    def write_json(self, name: str, value: object) -> None:
        """Write an output JSON artifact."""
        self._store.write_json(self._output(name), value)
        self._written.add(name)

    @contextmanager
    def link(self) -> Iterator[Link]:
        """Numbered messages to the partners; if the block fails for a reason of our own, they are told not to wait."""
        environment = self.environment
        line = Line(
            environment.transport,
            environment.session_id,
            environment.trace_id,
            environment.token,
            local=environment.channel,
            dialect=environment.dialect,
            source_node=environment.parties[environment.party].node_id,
        )
        channel = Channel(line)
        link = Link(
            channel,
            task_id=environment.task_id,
            own=environment.party,
            parties=self._addressed(),
            part_bytes=PART_BYTES if environment.dialect == "" else osx.PART_BYTES,
        )
        self.output.count_bytes(lambda: link.moved)
        try:
            yield link
        except ComponentError as e:
            if e.code not in {Code.PARTNER_GAVE_UP, Code.EMPTY_INTERSECTION}:
                link.abort(e.code)
            raise
        except BaseException:
            link.abort(Code.INTERNAL)
            raise
        finally:
            channel.close()

    def patience(self) -> Patience:
        """The limits of the parameters `total_seconds` (what is left of it) and `wait_seconds`, where it has them."""
        total, message = (self.parameters.get(name) for name in ("total_seconds", "wait_seconds"))
        left = (TOTAL_SECONDS if total is None else total) - (self._clock() - self._begun)
        return Patience(total=max(left, 0.0), message=WAIT_SECONDS if message is None else message)

    def require_outputs(self) -> None:
        """Raise ComponentError when an output that was asked for is not written."""
        missing = sorted(set(self.environment.outputs) - self._written)
        if missing:
            raise ComponentError(Code.INTERNAL, f"outputs not written: {', '.join(missing)}")

    def _addressed(self) -> Mapping[PartyName, Any]:
        roles = self.description.role_list
        return {party: at for party, at in self.environment.parties.items() if party.partition(".")[0] in roles}

    @property
    def _name(self) -> str:
        return f"component {self.description.component_name}"

    def _input(self, name: str) -> Artifact:
        try:
            return self.environment.inputs[name]
        except KeyError:
            raise ComponentError(Code.BAD_INPUT, f"{self._name}: input {name} is not given") from None

    def _output(self, name: str) -> Artifact:
        if name not in self.description.output_data:
            raise ComponentError(Code.INTERNAL, f"{self._name}: output {name} is not described")
        try:
            return self.environment.outputs[name]
        except KeyError:
            # Nobody reads it, but whoever looks for the task's results finds it beside the others.
            namespace = next((at.namespace for at in self.environment.outputs.values()), self.environment.task_id)
            return Artifact(namespace, f"{self.environment.task_id}-{name}")


def _parameters(environment: Environment, description: Description) -> dict[str, Any]:
    if environment.component != description.component_name:
        raise ComponentError(
            Code.BAD_INPUT, f"started as component {description.component_name}, asked for {environment.component[:80]}"
        )
    if environment.role not in description.role_list:
        raise ComponentError(
            Code.BAD_INPUT, f"component {description.component_name} has no role {environment.role[:64]}"
        )
    try:
        return description.decode_parameters(environment.parameters)
    except ParameterError as e:
        raise ComponentError(Code.BAD_INPUT, f"component {description.component_name}: {e}") from e


class Reporter:
    """Tells the scheduler: RUNNING at most once and first, then SUCCESS or FAILED exactly once (part 3, 11.2).

    Failing to reach it changes nothing: the exit code then counts (A-033).
    """

    def __init__(
        self, environment: Environment, output: Output, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._environment = environment
        self._output = output
        self._sleep = sleep
        self._final = False

    def running(self) -> None:
        self._post("RUNNING", attempts=2)

    def finished(self, *, success: bool) -> None:
        """Report the end; a second call is refused."""
        if self._final:
            raise ComponentError(Code.INTERNAL, "the end was reported already")
        self._final = True
        self._post("SUCCESS" if success else "FAILED", attempts=CALLBACK_ATTEMPTS)

    def _post(self, status: str, *, attempts: int) -> None:
        if self._environment.callback is None:
            return
        problem = ""
        for attempt in range(attempts):
            if attempt:
                self._sleep(0.2 * 2**attempt)
            try:
                problem = self._once(status)
            except (OSError, http.client.HTTPException, ValueError) as e:
                problem = type(e).__name__
            if not problem:
                return
        self._output.log(f"call-back {status} failed {attempts} times, the exit code has to do: {problem}")

    def _once(self, status: str) -> str:
        """One call; "" when it was answered, else what went wrong. An answer with another code than 0 is final."""
        environment = self._environment
        parts = urlsplit(environment.callback or "")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            return "system.callback is not an http address"
        body = json.dumps({"task_id": environment.task_id, "status": status, "role": environment.party})
        sent = {
            "Content-Type": "application/json",
            headers.PTP_TOKEN: environment.token,
            headers.TRACE: environment.trace_id,
        }
        connection = kind(parts.hostname, parts.port, timeout=10)
        try:
            path = parts.path if parts.path.strip("/") else CALLBACK_PATH
            connection.request("POST", path + (f"?{parts.query}" if parts.query else ""), body.encode(), sent)
            response = connection.getresponse()
            data = response.read(65536)
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            return f"HTTP status {response.status}"
        answer = json.loads(data) if data else {}
        code = answer.get("code", 0) if isinstance(answer, dict) else 0
        if code != 0:
            self._output.log(f"call-back {status} was refused with code {str(code)[:16]}")
        return ""


def run(
    description: Description,
    body: Callable[[Task], None],
    *,
    variables: Mapping[str, str] | None = None,
    stdout: TextIO | None = None,
    answer_queries: bool | None = None,
) -> int:
    """Run a component and return its exit code: 0 after SUCCESS, 1 after FAILED. variables: `os.environ` by default.

    answer_queries: listen on the control port for the scheduler's questions; None: only where `system.control_port` is
    given, for components that share a machine cannot all have the default one.

    Every error ends here: a ComponentError with its code, anything else as code 5000 with its traceback in the log.
    """
    stream = sys.stdout if stdout is None else stdout
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(encoding="utf-8", errors="backslashreplace")
    given = os.environ if variables is None else variables
    try:
        environment = read_environment(given)
    except ComponentError as e:
        # Without an environment there is nobody to call back.
        Output(stream).record("result", {"code": e.code, "message": e.message, "party": ""})
        return 1
    output = Output(stream, (environment.token, *storage_secrets(environment.storage)))
    reporter = Reporter(environment, output)
    with ExitStack() as stack:
        wanted = "system.control_port" in given if answer_queries is None else answer_queries
        finish = _listen(stack, environment, output) if wanted else None
        reporter.running()
        stack.enter_context(_ticking(output))
        code, message = _outcome(environment, description, body, output)
        success = code == Code.OK
        if finish is not None:
            finish(success=success)
        reporter.finished(success=success)
    output.record("result", {"code": code, "message": message, "party": environment.party})
    return 0 if success else 1


@contextmanager
def _ticking(output: Output) -> Iterator[None]:
    """Report kept progress every half second while the block runs."""
    done = threading.Event()

    def tick() -> None:
        while not done.wait(PROGRESS_SECONDS):
            output.tick()

    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()


def _listen(stack: ExitStack, environment: Environment, output: Output) -> Callable[..., None] | None:
    """Answer the scheduler's questions until the stack ends; what to tell about the end, None where it cannot be."""
    # Apart, for few components need a server.
    from gateway.sdk.status import Status, serving  # noqa: PLC0415

    status = Status(environment)
    try:
        stack.enter_context(serving(status, environment.control_port))
    except OSError as e:
        output.log(f"control port {environment.control_port} is not available, no query is answered: {e.strerror}")
        return None
    return status.finish


def _outcome(
    environment: Environment, description: Description, body: Callable[[Task], None], output: Output
) -> tuple[str, str]:
    """Result code and message of the body; outputs that are missing turn success into failure (part 3, 11.3)."""
    try:
        task = Task(environment, description, output)
        body(task)
        task.require_outputs()
    except ComponentError as e:
        return e.code, f"component {description.component_name}, party {environment.party}: {e.message}"
    except Exception as e:  # noqa: BLE001  # the component's own edge: whatever went wrong must become a report
        output.log("".join(traceback.format_exception(e)))
        return Code.INTERNAL, f"component {description.component_name}, party {environment.party}: internal error"
    return Code.OK, "ok"
