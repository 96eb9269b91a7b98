"""Endpoints of our own, which no partner needs (docs/adr/0007), and how partners of our kind hear of them."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.mgmt_plane.rest.edge import Handler
from gateway.mgmt_plane.rest.streamed import Streamed
from gateway.mgmt_plane.service.ending import is_kin
from gateway.mgmt_plane.service.receipt_exchange import ROUTE, ReceiptExchange
from gateway.model import Identity
from gateway.ports import Caller, Store
from specs.routes import EXTENSIONS, JOB_LOG, JOB_RECEIPT

_ANNOUNCED: Final = "job.stop"


def extension_handlers(exchange: ReceiptExchange, store: Store) -> Mapping[str, Handler]:
    """Handlers of receipts, keyed by the names of `specs.routes.OWN`."""

    async def job_receipt(caller: Caller, body: Mapping[str, Any]) -> Mapping[str, Any]:
        return await store.run(lambda tx: exchange.receive(tx, caller, body))

    return {ROUTE: job_receipt}


def announcing(handlers: Mapping[str, Handler], identity: Identity) -> Mapping[str, Handler]:
    """The handlers, the one of job/stop naming our extensions to partners that run this software."""
    stop = handlers[_ANNOUNCED]

    async def job_stop(caller: Caller, body: Mapping[str, Any]) -> Mapping[str, Any] | Streamed:
        data = await stop(caller, body)
        if isinstance(data, Streamed) or not is_kin(identity, caller.contract):
            return data
        return {**data, EXTENSIONS: [JOB_RECEIPT, JOB_LOG]}

    return {**handlers, _ANNOUNCED: job_stop}
