"""What is spoken with one partner, whatever it is: calls under way are counted, so that it can be given up behind them.

Implements `channel.Partner`; an attempt itself, and what is to be closed, is the business of `http_client`,
`grpc_client` and `stream_client`.
"""

from typing import Final

from gateway.data_plane.core import frame as fr
from gateway.data_plane.io.dial import Way

ANSWER_S: Final = 30.0
"""For an answer, while nothing comes or beyond the time that the message itself needs."""
SLOWEST_BYTES_PER_S: Final = 256 << 10


class Speaking:
    """One partner. way: how connections to it are opened."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._in_flight = 0
        self._retired = False

    @property
    def inst_id(self) -> str:
        return self._way.route.inst_id

    async def deliver(self, outgoing: fr.Outgoing) -> fr.Answer:
        """See channel.Partner."""
        self._in_flight += 1
        try:
            return await self._deliver(outgoing)
        finally:
            self._in_flight -= 1
            if self._retired and not self._in_flight:
                await self.close()

    async def retire(self) -> None:
        """Close as soon as the calls under way have ended."""
        self._retired = True
        if not self._in_flight:
            await self.close()

    async def close(self) -> None:
        """Close every connection, calls under way included."""
        raise NotImplementedError

    async def _deliver(self, outgoing: fr.Outgoing) -> fr.Answer:
        raise NotImplementedError
