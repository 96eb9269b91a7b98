"""Components as containers: what is the same for every engine (part 3 section 4).

An `Engine` knows how to make, watch and remove one container; `EngineLauncher` makes a `Launcher` of it: the folder of
the run, the log, records, time limits, adoption after a restart. The variables of part 3 section 5 reach the container
as they are (A-042); the job's folders are mounted at the path they have here, so `file://` addresses hold inside.

The exit code is the engine's word (A-022). A container is removed after its end, its log stays (A-029).
"""

import asyncio
import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from gateway.errors import Kind, Refused, Unavailable
from gateway.mgmt_plane.service.code import BUILTIN, EXECUTABLE
from gateway.runtime import shim
from gateway.runtime.launch import LOST, Exit, Launch, Launcher, Report, Running, read_exit

ENGINE: Final = "engine.json"
"""File of a run folder that says: a container, and its name."""
TELL_S: Final = 0.5
"""Between two looks at progress and limits."""
END_S: Final = 10.0
"""How long the last lines of a container that has ended are waited for."""


class EngineError(Exception):
    """The engine refused or was not reached; the text is for people and holds no variable of a component."""


class Engine(Protocol):
    """Containers by name. Every method blocks and raises EngineError."""

    def start(self, name: str, launch: Launch) -> None:
        """Make and start a container; one of that name that is there already is an error."""
        ...

    def lines(self, name: str) -> Iterator[bytes]:
        """Everything it has printed and prints, in pieces, until it ends."""
        ...

    def code(self, name: str) -> int | None:
        """Its exit code, None while it runs. Raises KeyError where there is no such container."""
        ...

    def secret(self, name: str) -> str:
        """The `config.token` that it was given."""
        ...

    def stop(self, name: str) -> None:
        """End it, politely first; none is fine."""
        ...

    def remove(self, name: str) -> None:
        """Remove it; none is fine."""
        ...


def container_name(run: Path) -> str:
    """Name of the container of a run: that of its folder as DNS allows it, with 32 digits of the task's digest."""
    plain = re.sub(r"[^a-z0-9-]+", "-", run.name.lower())
    return f"interconn-{plain[-50:].strip('-')}"


class EngineLauncher:
    """Components as containers of one engine."""

    def __init__(self, engine: Engine, *, log_bytes: int = shim.LOG_BYTES, tell_s: float = TELL_S) -> None:
        """log_bytes: most that is kept of what a component prints; tell_s: between two looks at it."""
        self._engine = engine
        self._log_bytes = log_bytes
        self._tell_s = tell_s

    async def launch(self, launch: Launch, report: Report) -> "EngineRun":
        name = container_name(launch.run)
        spec = {
            "name": name,
            "log": str(launch.log),
            "timeout_s": launch.timeout_s,
            "silent_s": launch.silent_s,
            "began": time.time(),
        }
        try:
            launch.directory.mkdir(parents=True, exist_ok=True)
            launch.run.mkdir(parents=True)
            launch.log.parent.mkdir(parents=True, exist_ok=True)
            launch.log.touch()
            shim.write_whole(launch.run / ENGINE, json.dumps(spec))
        except OSError as error:
            raise Unavailable(f"the task's folder cannot be made: {error.strerror}", kind=Kind.STORAGE) from error
        try:
            await asyncio.to_thread(self._engine.start, name, launch)
        except EngineError as error:
            raise Unavailable(f"the component cannot be started: {error}", kind=Kind.STORAGE) from error
        # Without this a later process takes a container that is gone for one that was never started.
        shim.claim_launch(launch.run, json.dumps({"name": name}))
        return self._watch(launch.run, spec, launch.environment.get("config.token", ""), report)

    async def adopt(self, run: Path, digest: str, report: Report) -> "EngineRun | None":
        del digest  # the name holds it
        try:
            spec = json.loads((run / ENGINE).read_text(encoding="utf-8"))
            name = str(spec["name"])
            spec = {**spec, "log": str(spec["log"]), "began": float(spec["began"])}
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not (run / shim.STARTED).is_file() and not (run / shim.EXIT).is_file():
            try:
                await asyncio.to_thread(self._engine.code, name)
            except KeyError:
                return None
            except EngineError:
                pass  # watched: the engine will be back
        return self._watch(run, spec, None, report)

    def _watch(self, run: Path, spec: Mapping[str, Any], secret: str | None, report: Report) -> "EngineRun":
        return EngineRun(self._engine, run, spec, secret, report, log_bytes=self._log_bytes, tell_s=self._tell_s)


class EngineRun:
    """A container that was started; secret: its token, None for one that a former process of this gateway began."""

    def __init__(
        self,
        engine: Engine,
        run: Path,
        spec: Mapping[str, Any],
        secret: str | None,
        report: Report,
        *,
        log_bytes: int,
        tell_s: float,
    ) -> None:
        self._engine = engine
        self._name = str(spec["name"])
        self._run = run
        self._spec = spec
        self._report = report
        self._tell_s = tell_s
        self._secret = secret
        self._log_bytes = log_bytes
        self._lines: shim.Lines | None = None
        self._heard = time.monotonic()
        self._why = ""
        self._told: Mapping[str, Any] | None = None
        self._end = asyncio.ensure_future(self._live())

    @property
    def pid(self) -> int | None:
        return None

    async def wait(self) -> Exit:
        return await asyncio.shield(self._end)

    async def kill(self) -> None:
        await self._stop("stopped")
        await asyncio.shield(self._end)

    def release(self) -> None:
        self._end.cancel()

    async def _stop(self, why: str) -> None:
        self._why = self._why or why
        with contextlib.suppress(EngineError):
            await asyncio.to_thread(self._engine.stop, self._name)

    async def _live(self) -> Exit:
        known = read_exit(self._run)
        if known is not None:
            return known
        loop, read = asyncio.get_running_loop(), asyncio.Event()

        def reading() -> None:
            self._read()
            with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits
                loop.call_soon_threadsafe(read.set)

        # A thread of its own, for it lives as long as the component: it must not take a place among those that do
        # short work, nor keep this process from ending.
        threading.Thread(target=reading, name=self._name, daemon=True).start()
        code = await self._code()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await read.wait()
        self._tell()
        end = self._ended(code)
        record = {"code": end.code, "signal": end.signal, "why": end.why, "problem": "", "result": end.result}
        shim.write_whole(self._run / shim.EXIT, json.dumps(record))
        with contextlib.suppress(EngineError):
            await asyncio.to_thread(self._engine.remove, self._name)
        return end

    def _ended(self, code: int | None) -> Exit:
        result = dict(self._lines.records.get("result", {})) if self._lines is not None else {}
        if code is None:
            return Exit(137, 9, LOST, result=result)
        # Engines tell a signal as 128 + its number.
        number = code - 128 if 128 < code < 128 + 65 and self._why else 0
        return Exit(code, number, self._why, result=result)

    async def _code(self) -> int | None:
        """Wait for the exit code; None where the container is gone."""
        while True:
            try:
                code = await asyncio.to_thread(self._engine.code, self._name)
            except KeyError:
                return None
            except EngineError:
                code = None  # the engine may be back; the task's time limit ends the waiting
            if code is not None:
                return code
            self._tell()
            if not self._why and time.time() - self._spec["began"] > self._spec["timeout_s"]:
                await self._stop("late")
            elif not self._why and time.monotonic() - self._heard > self._spec["silent_s"]:
                await self._stop("silent")
            await asyncio.sleep(self._tell_s)

    def _read(self) -> None:
        """Everything it prints, into the log. Blocking."""
        file = Path(self._spec["log"])
        with contextlib.suppress(EngineError, KeyError, OSError):
            secret = self._secret
            if secret is None:
                # The engine has every line, those too that came while nobody listened: they are all read again.
                secret = self._engine.secret(self._name)
                file.write_bytes(b"")
            log = shim.TaskLog(file, limit=self._log_bytes)
            self._lines = lines = shim.Lines(log, "INFO", secret.encode())
            try:
                for piece in self._engine.lines(self._name):
                    self._heard = time.monotonic()
                    lines.feed(piece)
            finally:
                lines.end()
                log.close()

    def _tell(self) -> None:
        progress = self._lines.records.get("progress") if self._lines is not None else None
        if progress is not None and progress is not self._told:
            self._told = progress
            self._report("progress", progress)


class ByImage:
    """Our own components and programs of this machine as processes, every other image as a container."""

    def __init__(self, processes: Launcher, containers: Launcher) -> None:
        self._processes = processes
        self._containers = containers

    async def launch(self, launch: Launch, report: Report) -> Running:
        own = launch.image.startswith((BUILTIN, EXECUTABLE))
        return await (self._processes if own else self._containers).launch(launch, report)

    async def adopt(self, run: Path, digest: str, report: Report) -> Running | None:
        contained = (run / ENGINE).is_file()
        return await (self._containers if contained else self._processes).adopt(run, digest, report)


def plain_image(image: str) -> str:
    """An image as an engine takes it. Raises Refused (COMPONENT_UNKNOWN)."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,511}", image) or "://" in image:
        raise Refused(f"image {image[:80]!r} is no name of a container image", kind=Kind.COMPONENT_UNKNOWN)
    return image
