"""How fast one partner may send: messages and payload bytes a second, each with a burst of some seconds.

What is over it is refused as OVERLOADED, which says that nothing was taken: a sender that follows the standard tries
again. Bytes are known only after a message was let in, so they are paid afterwards, and who is in debt waits.
"""

from dataclasses import dataclass
from typing import Final

from gateway.errors import Kind, Unavailable
from gateway.model import NodeId

BURST_S: Final = 2.0


@dataclass(slots=True)
class _Account:
    messages: float
    payload: float
    at: float


class Quotas:
    """One account for each partner. messages_per_s, bytes_per_s: 0 means as many as there are."""

    def __init__(self, *, messages_per_s: float = 0, bytes_per_s: float = 0) -> None:
        self._messages_per_s = messages_per_s
        self._bytes_per_s = bytes_per_s
        # Less than one message a burst would never let one in.
        self._most_messages = max(1.0, messages_per_s * BURST_S)
        self._most_bytes = bytes_per_s * BURST_S
        self._accounts: dict[NodeId, _Account] = {}

    def admit(self, node: NodeId, *, now: float) -> None:
        """Let one message in. now: monotonic seconds. Raises Unavailable(OVERLOADED), and nothing is charged."""
        if not self._messages_per_s and not self._bytes_per_s:
            return
        account = self._accounts.get(node)
        if account is None:
            account = self._accounts[node] = _Account(self._most_messages, self._most_bytes, now)
        passed, account.at = now - account.at, now
        account.messages = min(account.messages + self._messages_per_s * passed, self._most_messages)
        account.payload = min(account.payload + self._bytes_per_s * passed, self._most_bytes)
        if self._messages_per_s and account.messages < 1:
            raise Unavailable("over the partner's quota of messages", kind=Kind.OVERLOADED, detail="slower, please")
        if self._bytes_per_s and account.payload <= 0:
            raise Unavailable("over the partner's quota of bytes", kind=Kind.OVERLOADED, detail="slower, please")
        account.messages -= 1

    def spend(self, node: NodeId, size: int) -> None:
        """Pay for a message of `size` bytes that was let in."""
        account = self._accounts.get(node)
        if account is not None:
            account.payload -= size
