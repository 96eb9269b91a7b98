"""Waiting until something has happened, in a loop (`eventually`) or a thread (`wait_for`), and saying what has not."""

import asyncio
import inspect
import linecache
import time
from collections.abc import Callable
from typing import Any, Final

PATIENCE_S: Final = 8.0
"""What the test's own process does takes milliseconds, but the machine may have other work."""
PROCESSES_S: Final = 30.0
"""What other processes do: they start, and share the machine."""
PAUSE_S: Final = 0.005


async def eventually(look: Callable[[], Any], what: str = "", *, seconds: float = PATIENCE_S) -> Any:
    """What `look` gives, which may be awaitable, as soon as it is true. what: for the failure, else the line itself."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        if time.monotonic() >= deadline:
            raise _in_vain(look, what, found, seconds)
        await asyncio.sleep(PAUSE_S)


def wait_for(look: Callable[[], Any], what: str = "", *, seconds: float = PROCESSES_S) -> Any:
    """As eventually, of other processes and threads."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() >= deadline:
            raise _in_vain(look, what, found, seconds)
        time.sleep(10 * PAUSE_S)


def _in_vain(look: Callable[[], Any], what: str, last: object, seconds: float) -> AssertionError:
    code = getattr(look, "__code__", None)
    line = "" if code is None else linecache.getline(code.co_filename, code.co_firstlineno).strip()
    return AssertionError(f"waited {seconds} s in vain: {what or line or look!r}; last seen: {last!r}")
