"""Our own side's tasks over a Unix socket: push, pop, peek and release as frames (docs/transport.md).

What HTTP on the platform listener offers to everybody, for the component SDK and for whoever else likes: the same
rules, asked for every message. The socket is open to this user only, and whoever comes in still needs a task's token.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from gateway.data_plane.channel import Channel
from gateway.data_plane.core import frame as fr
from gateway.data_plane.core import stream as st
from gateway.data_plane.core.budget import Budget
from gateway.data_plane.core.frame import Envelope, Operation
from gateway.data_plane.core.stream_send import Buffer
from gateway.data_plane.io import door
from gateway.data_plane.io.rooms import Rooms
from gateway.data_plane.io.stream_line import FrameLine
from gateway.errors import GatewayError, Kind, ProtocolViolation, Unavailable
from gateway.model import Limits
from gateway.ports import Journal

SOCKET: Final = "tasks.sock"
MODE: Final = 0o600
LINES: Final = 4096
DRAIN_S: Final = 0.5
KINDS: Final = (st.HELLO, st.FLOW, st.MESSAGE, st.POP, st.PEEK, st.RELEASE, st.PING, st.PONG)
_READS: Final = {st.POP: Operation.POP, st.PEEK: Operation.PEEK, st.RELEASE: Operation.RELEASE}


class TaskLines:
    """The Unix socket and the lines that tasks have opened on it."""

    def __init__(self, *, channel: Channel, budget: Budget, rooms: Rooms, limits: Limits, journal: Journal) -> None:
        self.channel = channel
        self.budget = budget
        self.rooms = rooms
        self.limits = limits
        self.journal = journal
        body = limits.channel_body_bytes
        self.takes = st.Hello(window=max(body, 64 << 20), whole=body, total=body)
        self._lines: set[TaskLine] = set()
        self._server: asyncio.AbstractServer | None = None

    async def start(self, folder: Path) -> None:
        """Listen in a folder that only this user may enter."""
        path = folder / SOCKET
        path.unlink(missing_ok=True)
        self._server = await asyncio.get_running_loop().create_unix_server(lambda: TaskLine(self), str(path))
        path.chmod(MODE)

    async def stop(self) -> None:
        """Accept no more, close every line."""
        if self._server is not None:
            self._server.close()
            self._server = None
        # Those who waited are being answered.
        if under_way := [task for line in self._lines for task in line.under_way]:
            await asyncio.wait(under_way, timeout=DRAIN_S)
            await asyncio.sleep(0)
        for line in list(self._lines):
            line.end()

    def opened(self, line: "TaskLine") -> bool:
        """False: there are too many."""
        self._lines.add(line)
        return len(self._lines) <= LINES

    def closed(self, line: "TaskLine") -> None:
        self._lines.discard(line)

    def __len__(self) -> int:
        return len(self._lines)


class TaskLine(FrameLine):
    """One line of a task."""

    def __init__(self, lines: TaskLines) -> None:
        super().__init__(takes=lines.takes, kinds=KINDS)
        self._lines = lines
        self._flows: dict[int, Envelope | GatewayError] = {}
        self.under_way: set[asyncio.Task[None]] = set()
        self._answers: list[Buffer] = []
        self._settle: list[Callable[[bool], None]] = []
        self._borrowed = 0
        self._writable = asyncio.Event()
        self._writable.set()

    def begin(self, transport: asyncio.Transport) -> None:
        if not self._lines.opened(self):
            self.end(Unavailable("too many lines of tasks", kind=Kind.TOO_MANY))
            return
        super().begin(transport)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writable.clear()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._writable.set()

    def more(self, most: int) -> Sequence[Buffer]:
        del most
        answers, self._answers = self._answers, []
        door.tell(self._settle, written=True)
        return answers

    def room(self, frame: st.Frame) -> memoryview | None:
        try:
            self._lines.budget.borrow(frame.size)
        except Unavailable:
            return None
        self._borrowed = frame.size
        return self._lines.rooms.take(frame.size)

    def frame(self, frame: st.Frame) -> None:
        if frame.kind == st.FLOW:
            self._flow(frame)
            return
        known = self._flows.get(frame.flow)
        if known is None:
            raise ProtocolViolation("stream: no such flow")
        if len(self.under_way) >= self.takes.messages:
            raise ProtocolViolation("stream: more than the window")
        if frame.kind == st.MESSAGE:
            self._push(frame, known)
        else:
            self._ask(frame, known)

    def ended(self, failure: GatewayError | None) -> None:
        # Who waits on a line that is gone must take no message.
        for task in self.under_way:
            task.cancel()
        door.tell(self._settle, written=False)
        self._lines.budget.repay(self._borrowed)
        self._borrowed = 0
        self._lines.closed(self)
        if failure is not None:
            self._lines.journal.note("tasks.line", reason=str(failure))

    # -- frames

    def _flow(self, frame: st.Frame) -> None:
        if frame.flow >= self.takes.flows:
            raise ProtocolViolation("stream: flow out of range")
        try:
            self._flows[frame.flow] = fr.read_envelope(st.read_flow(frame.body), self._lines.limits)
        except GatewayError as wrong:
            self._flows[frame.flow] = wrong

    def _push(self, frame: st.Frame, known: Envelope | GatewayError) -> None:
        budget = self._lines.budget
        borrowed, self._borrowed = self._borrowed, 0
        try:
            if isinstance(known, GatewayError):
                raise known
            envelope = replace(known, message=st.name_of(frame)) if frame.text else known
            self._lines.channel.admit_container(envelope, Operation.PUSH)
            if not borrowed:
                budget.borrow(frame.size)
                borrowed = frame.size
            if len(frame.body) < frame.size:
                raise Unavailable("the process's buffer is full", kind=Kind.BUFFER_FULL)
        except GatewayError as e:
            budget.repay(borrowed)
            self._refuse(frame.ref, known, e, Operation.PUSH)
            return
        message = fr.Frame(Operation.PUSH, fr.Codec.RAW, envelope, envelope.topic, frame.body)
        self._start(self._hand_on(frame.ref, message, borrowed))

    def _ask(self, frame: st.Frame, known: Envelope | GatewayError) -> None:
        operation = _READS[frame.kind]
        try:
            if isinstance(known, GatewayError):
                raise known
            self._lines.channel.admit_container(known, operation)
        except GatewayError as e:
            self._refuse(frame.ref, known, e, operation)
            return
        wait_ms = min(frame.value, self._lines.limits.pop_max_ms)
        self._start(self._answer(frame.ref, fr.Frame(operation, fr.Codec.RAW, known, known.topic, b"", wait_ms)))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = self.loop.create_task(work)
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)

    async def _hand_on(self, ref: int, message: fr.Frame, borrowed: int) -> None:
        try:
            await self._lines.channel.push(message, message.payload)
        except GatewayError as e:
            self._refuse(ref, message.envelope, e, Operation.PUSH)
        except Exception as e:  # noqa: BLE001  # the edge: nothing of it may reach the caller
            self._nack(ref, door.internal(self._lines.journal, e))
        else:
            self.ack(ref)
        finally:
            self._lines.budget.repay(borrowed)

    async def _answer(self, ref: int, asked: fr.Frame) -> None:
        channel = self._lines.channel
        try:
            # A task that does not read what it asked for gets no more.
            await self._writable.wait()
            if asked.operation is Operation.RELEASE:
                channel.release(asked)
                self.ack(ref)
                return
            popped = await (channel.pop(asked) if asked.operation is Operation.POP else channel.peek(asked))
        except GatewayError as e:
            self._refuse(ref, asked.envelope, e, asked.operation)
        except Exception as e:  # noqa: BLE001  # the edge
            self._nack(ref, door.internal(self._lines.journal, e))
        else:
            if popped is None:
                self._answers.append(st.pack(st.NOTHING, ref=ref))
            else:
                self._answers += (st.pack(st.MESSAGE, size=len(popped.payload), ref=ref), popped.payload)
                self._settle.append(popped.settle)
            self.schedule()

    def _refuse(self, ref: int, known: Envelope | GatewayError, error: GatewayError, operation: Operation) -> None:
        self._lines.channel.refused(known if isinstance(known, Envelope) else None, operation, error)
        self._nack(ref, error)

    def _nack(self, ref: int, error: GatewayError) -> None:
        self.say(st.pack_nack(ref, fr.code_of(error), error.public_text()))
