"""Admin routes of job receipts: sign what we know, countersign what a partner's admin sent."""

from collections.abc import Mapping
from typing import Any

from gateway.mgmt_plane.rest.admin_server import AdminRoute
from gateway.mgmt_plane.service.receipts import Receipts
from gateway.model import JobId
from gateway.ports import Store
from specs.admin import BASE


class ReceiptAdmin:
    """The handlers; `routes` lists them."""

    def __init__(self, receipts: Receipts, store: Store) -> None:
        self._receipts = receipts
        self._store = store

    def routes(self) -> list[AdminRoute]:
        return [AdminRoute("POST", BASE + "/jobs/{job_id}/receipt", self.sign)]

    async def sign(self, params: Mapping[str, str], _query: Mapping[str, str], body: Mapping[str, Any]) -> Any:
        """{} -> the receipt with all signatures known here; a receipt -> the same with ours, where it is true."""
        job_id = JobId(params["job_id"])
        if not body:
            return await self._store.run(lambda tx: self._receipts.issue(tx, job_id))
        return await self._store.run(lambda tx: self._receipts.countersign(tx, job_id, body))
