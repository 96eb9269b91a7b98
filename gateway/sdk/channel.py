"""A component's line to its own transport module: push, pop, peek and release (part 4 sections 3, 4).

HTTP/1.1 with std-proto bodies, which modules that follow the standard understand, or in a declared dialect
(`gateway.sdk.osx`); or, where the gateway has named one, its Unix socket (`gateway.sdk.local`). One kept connection per
thread. What to retry, how long to wait and in which order messages count is decided by `gateway.sdk.drive`; here only
what is certain not to have happened is tried again.
"""

import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.sdk import codec, osx
from gateway.sdk.arrays import pieces_of, value_of
from gateway.sdk.environment import OSX_HTTP, Address
from gateway.sdk.local import LocalLine
from gateway.sdk.once import Key, Once
from gateway.sdk.result import Code, ComponentError
from specs import headers

PROVIDER: Final = "interconn"
SUCCESS: Final = "E0000000000"
TIMED_OUT: Final = "E0000000601"
BUFFER_FULL: Final = "E0000000700"
TRANSIENT: Final = frozenset({"E0000000503", "E0000000601", "E0000000602", "E0000000607", "E0000000619"})
"""The partner's module could not be reached just now; whether the message arrived is not known."""
MAX_ANSWER_BYTES: Final = (1 << 30) + (1 << 20)
SLOWEST_BYTES_PER_S: Final = 256 << 10
"""A push may take the time of an answer and, besides, what its size needs at this pace."""
GRACE_SECONDS: Final = 1.0
"""A call that begins at its deadline still gets this long."""
JOIN_BELOW: Final = 64 << 10
"""Bodies up to this size are joined into one piece, so that they leave in one segment."""

Payload = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Line:
    """Where the transport module is and what every call says (A-041). address: host:port, with or without scheme.

    local: the module's Unix socket, "" for none; where nobody listens there, address is used. dialect: "" or OSX_HTTP.
    source_node: our node, said only to modules that do not know it.
    """

    address: str
    session_id: str
    trace_id: str
    token: str = field(repr=False)
    provider: str = PROVIDER
    local: str = ""
    dialect: str = ""
    source_node: str = ""
    connect_seconds: float = 10.0
    answer_seconds: float = 60.0


def split_address(address: str) -> tuple[bool, str, int]:
    """(TLS?, host, port) of `system.transport` (A-040). Raises ComponentError(BAD_INPUT) for other schemes."""
    scheme, separator, _ = address.partition("://")
    parts = urlsplit(address if separator else f"http://{address}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    if separator and scheme.lower() not in {"http", "https"}:
        raise ComponentError(Code.BAD_INPUT, f"system.transport: scheme {scheme[:16]!r} is not spoken here")
    if not parts.hostname or port == -1:
        raise ComponentError(Code.BAD_INPUT, "system.transport: must be host:port")
    return parts.scheme.lower() == "https", parts.hostname, port or 7304


class Channel:
    """Calls of one task on its transport module. Safe to share between threads."""

    def __init__(
        self, line: Line, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._line = line
        self._tls, self._host, self._port = split_address(line.address)
        self._clock = clock
        self._sleep = sleep
        self._mine = threading.local()
        self._socket = line.local
        """Path of the Unix socket; "" once it is known that nobody listens there."""
        self._met = False
        self._once = Once()
        self._turns: dict[tuple[str, Key], threading.Lock] = {}
        for text in (line.session_id, line.trace_id, line.token):
            if not text.isascii() or (text and not text.isprintable()):
                raise ComponentError(Code.BAD_INPUT, "session id, trace id and token must be printable ASCII")

    def push(self, topic: str, *parts: Payload, to: Address, deadline: float, repeatable: bool = False) -> None:
        """Queue the concatenation of `parts` at the module of `to`; returns when it is there.

        deadline: by `clock`; an answer is waited for at most a second longer. Retried until then: a refused connection
        and a full buffer, since the message is certainly not there; with `repeatable` (the receiver drops repeats) also
        what may have got lost on the way.
        Raises ComponentError(TRANSPORT).
        """
        views = [memoryview(part).cast("B") for part in parts]
        # One at a time, so that none waits at the receiver for one before it that was given up.
        with self._turn("push", key := (topic, to.node_id)):
            lane = self._once.lane(key)
            number, taken = lane.begin(), False
            try:
                self._push(topic, views, to, str(lane.name(number)), deadline=deadline, repeatable=repeatable)
                taken = True
            finally:
                lane.end(number, taken=taken)

    def _push(
        self,
        topic: str,
        views: Sequence[memoryview],
        to: Address,
        name: str,
        *,
        deadline: float,
        repeatable: bool,
    ) -> None:
        longest = self._line.answer_seconds + sum(map(len, views)) // SLOWEST_BYTES_PER_S
        pause = 0.05
        while True:
            try:
                left = max(deadline - self._clock(), 0) + GRACE_SECONDS
                answer = self._ask("push", topic, to, parts=views, mark=name, wait=min(left, longest))
                code, problem = answer.code, f"code {answer.code or 'missing'}"
                again = code == BUFFER_FULL or (repeatable and code in TRANSIENT)
            except ConnectionRefusedError:
                code, again, problem = "", True, "connection refused"
            except (OSError, http.client.HTTPException) as e:
                code, again, problem = "", repeatable, type(e).__name__
            if code == SUCCESS:
                return
            if not again or self._clock() + pause >= deadline:
                raise ComponentError(Code.TRANSPORT, f"push to node {to.node_id} failed: {problem}")
            self._sleep(pause)
            pause = min(pause * 2, 2.0)

    def pop(self, topic: str, *, source: Address, wait_ms: int, deadline: float) -> memoryview | None:
        """Take the next message of a topic; None when there is none within `wait_ms` milliseconds.

        The target header names the data's source, so that no other partner can speak for it (part 4, 9.2).
        A connection that breaks is tried again until `deadline`; a message lost with it is given out again by a gateway
        that keeps it on disk, else noticed by its number.
        """
        key = (topic, source.node_id)
        if not self._once.ack(key):
            return self._pop(topic, source, key, wait_ms=wait_ms, deadline=deadline)
        with self._turn("pop", key):
            return self._pop(topic, source, key, wait_ms=wait_ms, deadline=deadline)

    def _pop(self, topic: str, source: Address, key: Key, *, wait_ms: int, deadline: float) -> memoryview | None:
        pause = 0.05
        while True:
            try:
                ack = self._once.ack(key)
                answer = self._ask("pop", topic, source, mark=ack, wait_ms=wait_ms, wait=wait_ms / 1000 + 15)
            except (OSError, http.client.HTTPException) as e:
                if self._clock() + pause >= deadline:
                    raise ComponentError(Code.TRANSPORT, f"transport module not reached: {type(e).__name__}") from e
            else:
                message = self._message("pop", answer)
                if ack:
                    self._once.answered(key, answer.named, message=message is not None)
                return message
            self._sleep(pause)
            pause = min(pause * 2, 2.0)

    def peek(self, topic: str, *, source: Address) -> memoryview | None:
        """The next message of a topic without waiting; most modules also remove it (T-022). Tried once."""
        try:
            return self._message("peek", self._ask("peek", topic, source, wait=10))
        except (OSError, http.client.HTTPException) as e:
            raise ComponentError(Code.TRANSPORT, f"transport module not reached: {type(e).__name__}") from e

    def release(self, topic: str, *, target: Address) -> None:
        """Drop what is left of a topic, or of the whole session when `topic` is empty."""
        try:
            answer = self._ask("release", topic, target, wait_ms=10_000, wait=20)
        except (OSError, http.client.HTTPException) as e:
            raise ComponentError(Code.TRANSPORT, f"transport module not reached: {type(e).__name__}") from e
        if answer.code != SUCCESS:
            raise ComponentError(Code.TRANSPORT, f"release refused with code {answer.code or 'missing'}")

    def now(self) -> float:
        """The time by which deadlines are given."""
        return self._clock()

    def send(self, topic: str, value: Any, *, to: Address, deadline: float, repeatable: bool = False) -> None:
        """Push a buffer, a NumPy array or an Arrow table, without a copy of its data (gateway.sdk.arrays)."""
        self.push(topic, *pieces_of(value), to=to, deadline=deadline, repeatable=repeatable)

    def recv(self, topic: str, *, source: Address, wait_ms: int, deadline: float) -> Any:
        """Pop an array or table that was sent with `send`; None when there is none in time.

        Raises ComponentError(PARTNER_VIOLATION) for a message that is neither.
        """
        message = self.pop(topic, source=source, wait_ms=wait_ms, deadline=deadline)
        return None if message is None else value_of(message)

    def close(self) -> None:
        """Close this thread's connection."""
        for name in ("connection", "line"):
            connection = getattr(self._mine, name, None)
            if connection is not None:
                connection.close()
                setattr(self._mine, name, None)

    @staticmethod
    def _message(operation: str, answer: codec.Outbound) -> memoryview | None:
        if answer.code == TIMED_OUT:
            return None
        if answer.code != SUCCESS:
            raise ComponentError(Code.TRANSPORT, f"{operation} refused with code {answer.code or 'missing'}")
        return answer.payload or None

    def _connection(self, wait: float) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._mine, "connection", None)
        if connection is None:
            kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
            connection = kind(self._host, self._port, timeout=min(wait, self._line.connect_seconds))
            connection.connect()
            self._mine.connection = connection
        return connection

    def _ask(
        self,
        operation: str,
        topic: str,
        address: Address,
        *,
        parts: Sequence[memoryview] = (),
        mark: str = "",
        wait_ms: int = 0,
        wait: float,
    ) -> codec.Outbound:
        """One call, over whichever way there is. mark: a push's name, a pop's acknowledgement.

        Raises OSError or HTTPException when no whole answer came; the connection is then closed.
        """
        line = self._line_of_mine(wait)
        if line is None or sum(map(len, parts)) > line.most:
            return self._call(operation, topic, parts, wait_ms, address, mark=mark, wait=wait)
        try:
            if operation == "push":
                return line.push(said(self._line, address, topic), parts, name=mark, wait=wait)
            return line.ask(operation, said(self._line, address, topic), ack=mark, wait_ms=wait_ms, wait=wait)
        except BaseException:
            self.close()
            raise

    def _line_of_mine(self, wait: float) -> LocalLine | None:
        """This thread's line on the Unix socket; None where the gateway has none."""
        if not self._socket:
            return None
        line: LocalLine | None = getattr(self._mine, "line", None)
        if line is None:
            try:
                line = LocalLine(self._socket, seconds=min(wait, self._line.connect_seconds))
            except OSError as e:
                if self._met:
                    # It was there: the gateway is being started anew.
                    raise ConnectionRefusedError from e
                self._socket = ""
                return None
            self._met = True
            self._mine.line = line
        return line

    def _turn(self, operation: str, key: Key) -> threading.Lock:
        """One call of a topic at a time."""
        return self._turns.setdefault((operation, key), threading.Lock())

    def _call(
        self,
        operation: str,
        topic: str,
        parts: Sequence[memoryview],
        wait_ms: int,
        address: Address,
        *,
        mark: str = "",
        wait: float,
    ) -> codec.Outbound:
        is_osx, path = self._line.dialect == OSX_HTTP, f"/v1/interconn/chan/{operation}"
        sent = {**said(self._line, address), "Content-Type": "application/x-protobuf"}
        if mark:
            sent[headers.MESSAGE if operation == "push" else headers.ACK] = mark
        if is_osx:
            body: list[Payload] = [osx.request(operation, topic, parts, wait_ms)]
            sent |= {"Content-Type": osx.CONTENT_TYPE, headers.PTP_SOURCE_NODE: self._line.source_node}
            sent |= {headers.PTP_URI: path} if operation == "push" else {}
        else:
            body = _body(operation, topic, parts, wait_ms)
        sent["Content-Length"] = str(sum(len(piece) for piece in body))
        try:
            connection = self._connection(wait)
            connection.sock.settimeout(wait)
            connection.request("POST", path, body=body, headers=sent)
            response = connection.getresponse()
            data = _read_body(response)
            # A connection that ends before the first byte of the body closes the response too; length then says so.
            whole = response.isclosed() and not response.length
        except BaseException:
            self.close()
            raise
        if not whole:
            self.close()
            if len(data) <= MAX_ANSWER_BYTES:
                raise http.client.IncompleteRead(b"")
            raise ComponentError(Code.TRANSPORT, f"answer to {operation} longer than {MAX_ANSWER_BYTES} bytes")
        if is_osx and response.status == http.HTTPStatus.OK:
            try:
                return osx.read(operation, data)
            except codec.CodecError as e:
                raise ComponentError(Code.TRANSPORT, f"{operation} answered: {e}") from e
        return _read_answer(operation, response.status, response.headers.get_content_type(), data)


def said(line: Line, address: Address, topic: str = "") -> Mapping[str, str]:
    """What every call about a topic says in its headers (A-041)."""
    known = {
        headers.PTP_PROVIDER: line.provider,
        headers.PTP_TRACE: line.trace_id,
        headers.PTP_TOKEN: line.token,
        headers.PTP_SESSION: line.session_id,
        headers.PTP_TARGET_NODE: address.node_id,
    }
    if address.inst_id:
        known[headers.PTP_TARGET_INST] = address.inst_id
    if topic:
        known[headers.PTP_TOPIC] = topic
    return known


def _body(operation: str, topic: str, parts: Sequence[memoryview], wait_ms: int) -> list[Payload]:
    """The std-proto body of an operation, in pieces where it is large."""
    if operation == "pop":
        return [codec.pop_request(topic, wait_ms)]
    if operation == "peek":
        return [codec.peek_request(topic)]
    if operation == "release":
        return [codec.release_request(topic, wait_ms)]
    body: list[Payload] = [codec.push_head(topic, sum(len(part) for part in parts)), *parts]
    return [b"".join(body)] if sum(len(piece) for piece in body) <= JOIN_BELOW else body


def _read_body(response: http.client.HTTPResponse) -> Payload:
    """MAX_ANSWER_BYTES of it and one more at the most, a large one of known length into its place without a copy."""
    length = response.length
    if length is None or not JOIN_BELOW < length <= MAX_ANSWER_BYTES:
        return response.read(MAX_ANSWER_BYTES + 1)
    data, at = memoryview(bytearray(length)), 0
    while at < length and (count := response.readinto(data[at:])):
        at += count
    return data[:at]


def _read_answer(operation: str, status: int, content_type: str, data: Payload) -> codec.Outbound:
    """Answers come in the request's codec (T-007); an edge that refuses early may answer JSON or nothing readable."""
    try:
        if content_type == "application/json":
            value = json.loads(bytes(data))
            code = value.get("code") if isinstance(value, dict) else None
            answer = codec.Outbound(code if isinstance(code, str) else "", "", memoryview(b""))
        else:
            answer = codec.read_outbound(data)
    except (ValueError, RecursionError):
        answer = codec.Outbound("", "", memoryview(b""))
    if not answer.code and status != http.HTTPStatus.OK:
        raise ComponentError(Code.TRANSPORT, f"{operation} answered with HTTP status {status}")
    return answer
