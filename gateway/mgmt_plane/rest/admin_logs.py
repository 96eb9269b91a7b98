"""Admin routes of logs that partners see: who may see ours, and what a partner shows of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.mgmt_plane.rest.admin_server import AdminRoute
from gateway.mgmt_plane.service.log_tails import LogTails
from gateway.model import LogConsent, NodeId
from specs.admin import BASE


class LogAdmin:
    """The handlers; `routes` lists them."""

    def __init__(self, tails: LogTails) -> None:
        self._tails = tails

    def routes(self) -> list[AdminRoute]:
        return [
            AdminRoute("GET", f"{BASE}/log-consents", self.show),
            AdminRoute("POST", f"{BASE}/log-consents", self.consent),
            AdminRoute("GET", f"{BASE}/jobs/{{job_id}}/logs/{{node_id}}", self.ask),
        ]

    async def show(self, _params: Mapping[str, str], _query: Mapping[str, str], _body: Mapping[str, Any]) -> Any:
        return _consents(await self._tails.consents())

    async def consent(self, _params: Mapping[str, str], _query: Mapping[str, str], body: Mapping[str, Any]) -> Any:
        """{node_id, (job_id), (allow)} -> the consents that stand then."""
        node, job = NodeId(body["node_id"]), body.get("job_id") or ""
        return _consents(await self._tails.consent(node, job, allow=body.get("allow") is not False))

    async def ask(self, params: Mapping[str, str], query: Mapping[str, str], _body: Mapping[str, Any]) -> Any:
        return await self._tails.ask(params["job_id"], NodeId(params["node_id"]), query.get("task_name") or None)


def _consents(found: Sequence[LogConsent]) -> list[dict[str, Any]]:
    return [{"node_id": each.node_id, "job_id": each.job_id, "created": each.created} for each in found]
