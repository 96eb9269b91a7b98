"""Sends notices of what waits for a decision to one webhook, like the outbox: again, a bounded number of times.

The body is signed: header x-interconn-signature is `t=<ms>,v1=<hex HMAC-SHA256 of "<ms>.<body>">`. Redirects are not
followed: they could lead anywhere. Notices arrive at least once; notice_id tells repeats.
"""

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import json
from typing import Final
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar

from gateway.errors import CallerError, GatewayError, Kind
from gateway.mgmt_plane.service.notices import forget, not_taken, still_waits, told
from gateway.model import CallState, NodeId, Notice
from gateway.ports import Clock, Entropy, Journal, Store
from gateway.runtime.outbox import pause_ms

SIGNATURE: Final = "x-interconn-signature"
TIMEOUT_S: Final = 10.0
ATTEMPTS: Final = 10
"""Over some five minutes; then the journal says notify.dead and it waits for the admin (`interconn notice`).
`interconn pending` shows what is to be decided in any case.
"""
SHORTEST_SECRET: Final = 32
_IDLE_S: Final = 30.0


def check_webhook(url: str) -> str:
    """The URL if notices may go there: https, or http to this very machine; raises CallerError."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as e:
        raise CallerError("notify.webhook is not a URL", kind=Kind.MALFORMED) from e
    if parts.username is not None or parts.fragment or not host:
        raise CallerError("notify.webhook must name a host, and hold no user and no fragment", kind=Kind.MALFORMED)
    loopback = host == "localhost"
    with contextlib.suppress(ValueError):
        loopback = ipaddress.ip_address(host).is_loopback
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise CallerError("notify.webhook must be https (http on loopback only)", kind=Kind.MALFORMED)
    return url


def signature(secret: bytes, *, at_ms: int, body: bytes) -> str:
    """Value of the header SIGNATURE."""
    return f"t={at_ms},v1={hmac.new(secret, str(at_ms).encode() + b'.' + body, hashlib.sha256).hexdigest()}"


class Notifier:
    """One task between `start` and `stop`. `wake` may be called from any thread, also before `start`."""

    def __init__(
        self,
        *,
        url: str,
        secret: bytes,
        node_id: NodeId,
        store: Store,
        journal: Journal,
        clock: Clock,
        entropy: Entropy,
        attempts: int = ATTEMPTS,
    ) -> None:
        if len(secret) < SHORTEST_SECRET:
            raise CallerError(f"the webhook's secret must have at least {SHORTEST_SECRET} bytes", kind=Kind.MALFORMED)
        self._url = check_webhook(url)
        self._secret = secret
        self._node_id = node_id
        self._store = store
        self._journal = journal
        self._clock = clock
        self._entropy = entropy
        self._attempts = attempts
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run(), name="notifier")

    async def stop(self) -> None:
        """Stop; what was not sent is sent after the next start."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        async with ClientSession(timeout=ClientTimeout(total=TIMEOUT_S), cookie_jar=DummyCookieJar()) as session:
            while True:
                self._news.clear()
                try:
                    wait_s = await self._round(session)
                except GatewayError as e:
                    self._journal.note("notify.waits", reason=str(e)[:300])
                    wait_s = 1.0
                except Exception as e:  # noqa: BLE001  # one notice must not end the sending of all others
                    self._journal.note("notify.error", reason=type(e).__name__)
                    wait_s = _IDLE_S
                # Not wait_for: before Python 3.12 it forgets that it was cancelled where the news come in that moment.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._news.wait()

    async def _round(self, session: ClientSession) -> float:
        """Send what is due; seconds until something else will be."""
        while True:
            now = self._clock.now_ms()
            waiting = await self._store.run(lambda tx: tx.select(Notice, order="due", limit=1, state=CallState.DUE))
            if not waiting:
                await self._store.run(forget)
                return _IDLE_S
            if waiting[0].due > now:
                return min(_IDLE_S, max(1, waiting[0].due - now) / 1000)
            await self._one(session, waiting[0])

    async def _one(self, session: ClientSession, notice: Notice) -> None:
        if not await self._store.run(lambda tx: still_waits(tx, notice)):
            await self._store.run(lambda tx: tx.delete(notice))
            return
        problem = await self._send(session, notice)
        attempts, dead = notice.attempts + 1, False
        if problem:
            due = self._clock.now_ms() + pause_ms(attempts, self._entropy.token(1))
            later = not_taken(notice, problem, due=due, most=self._attempts)
            dead = later.state is CallState.DEAD
            await self._store.run(lambda tx: tx.replace(notice, later))
        else:
            await self._store.run(lambda tx: tx.delete(notice))
        if dead or not problem:
            event = "notify.dead" if dead else "notify.sent"
            self._journal.note(event, kind=notice.kind, subject=notice.subject, attempts=attempts, reason=problem)

    async def _send(self, session: ClientSession, notice: Notice) -> str:
        """Why it was not taken, never in the answer's own words; empty where it was."""
        body = json.dumps(told(notice, node_id=self._node_id)).encode()
        headers = {
            "content-type": "application/json",
            SIGNATURE: signature(self._secret, at_ms=self._clock.now_ms(), body=body),
        }
        try:
            async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
                return "" if 200 <= answer.status < 300 else f"HTTP {answer.status}"
        except (ClientError, OSError, TimeoutError) as e:
            return type(e).__name__
