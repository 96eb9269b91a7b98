"""The Unix-socket line between control and data process, both ends: what control tells, as JSON over HTTP.

Server side (data process): POST /link/snapshot, /link/routes, /link/network, /link/shown, /link/sessions,
/link/sessions/close; GET /link/sent, /link/stats, /link/figures.
Client side (control process): `DataPlaneLink`, a ports.DataPlane. A data process that starts knows nothing and pulls
`GET /link/snapshot` from control before it listens; while it is away, calls of `DataPlaneLink` wait a little for it.
The socket lies in a folder that only this user may enter; that is the whole of its access control.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar, get_type_hints
from urllib.parse import quote

import aiohttp
from aiohttp import web

from gateway.errors import GatewayError, Kind, ProtocolViolation, Unavailable
from gateway.model import NodeId, PartnerWay, RelayPair, SessionId
from gateway.ports import Network, PeerRoute, SessionRule

R = TypeVar("R", PartnerWay, RelayPair)

BODY_BYTES: Final = 64 << 20
CONTROL_SOCKET: Final = "control.sock"
DATA_SOCKET: Final = "data.sock"
_PAUSE_S: Final = 0.05


NO_NETWORK: Final = Network()


# -- records <-> JSON


def route_to_json(route: PeerRoute) -> Mapping[str, Any]:
    return {
        "node_id": route.node_id,
        "inst_id": route.inst_id,
        "address": route.address,
        "tls_ca": route.tls_ca,
        "profile": route.profile,
        "crls": dict(route.crls),
        "our_chain": route.our_chain,
        "our_key": route.our_key,
    }


def network_to_json(network: Network) -> Mapping[str, Any]:
    return {
        "ways": [asdict(way) for way in network.ways],
        "holding": [route_to_json(route) for route in network.holding],
        "relays": [asdict(pair) for pair in network.relays],
    }


def rule_to_json(rule: SessionRule) -> Mapping[str, Any]:
    return {
        "session_id": rule.session_id,
        "nodes": list(rule.nodes),
        "tokens": dict(rule.tokens),
        "outgoing": dict(rule.outgoing),
        "durability": rule.durability,
        "prefix": rule.prefix,
        "until": rule.until,
        "aliases": {digest: dict(names) for digest, names in rule.aliases.items()},
    }


def snapshot_to_json(
    routes: Sequence[PeerRoute],
    rules: Sequence[SessionRule],
    *,
    shown: tuple[str, str] = ("", ""),
    network: Network = NO_NETWORK,
) -> Mapping[str, Any]:
    """What control answers on GET /link/snapshot. shown: PEM files (chain, key) for the listener, "" for none."""
    return {
        "routes": [route_to_json(r) for r in routes],
        "sessions": [rule_to_json(r) for r in rules],
        "shown": list(shown),
        "network": network_to_json(network),
    }


def routes_from_json(value: Any) -> Sequence[PeerRoute]:
    try:
        return [
            PeerRoute(
                node_id=NodeId(_text(v["node_id"])),
                inst_id=_text(v["inst_id"]),
                address=_text(v["address"]),
                tls_ca=_text(v["tls_ca"]),
                profile=_text(v["profile"]),
                our_chain=_text(v["our_chain"]),
                our_key=_text(v["our_key"]),
                crls={_text(ca): _text(pem) for ca, pem in v["crls"].items()},
            )
            for v in value
        ]
    except (KeyError, TypeError, AttributeError) as e:
        raise ProtocolViolation("routes: malformed") from e


def rule_from_json(value: Any) -> SessionRule:
    try:
        return SessionRule(
            session_id=SessionId(_text(value["session_id"])),
            nodes=tuple(NodeId(_text(node)) for node in value["nodes"]),
            tokens={_text(k): _text(v) for k, v in value["tokens"].items()},
            outgoing={NodeId(_text(k)): _text(v) for k, v in value["outgoing"].items()},
            durability=_text(value["durability"]),
            prefix=value["prefix"] is True,
            until=None if value["until"] is None else int(value["until"]),
            aliases={
                _text(digest): {NodeId(_text(node)): SessionId(_text(name)) for node, name in names.items()}
                for digest, names in value["aliases"].items()
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise ProtocolViolation("session: malformed") from e


def snapshot_from_json(value: Any) -> tuple[Sequence[PeerRoute], Mapping[SessionId, SessionRule]]:
    try:
        routes, rules = value["routes"], value["sessions"]
    except (KeyError, TypeError) as e:
        raise ProtocolViolation("snapshot: malformed") from e
    return routes_from_json(routes), {rule.session_id: rule for rule in map(rule_from_json, rules)}


def network_from_json(value: Any) -> Network:
    try:
        return Network(
            ways=[_checked(PartnerWay, each) for each in value["ways"]],
            holding=routes_from_json(value["holding"]),
            relays=[_checked(RelayPair, each) for each in value["relays"]],
        )
    except (KeyError, TypeError) as e:
        raise ProtocolViolation("network: malformed") from e


def _checked(kind: type[R], value: Mapping[str, Any]) -> R:
    """A record of plain members. Raises KeyError or TypeError where one is missing or of another type."""
    hints = {name: getattr(hint, "__supertype__", hint) for name, hint in get_type_hints(kind).items()}
    if any(type(value[name]) is not hint for name, hint in hints.items()):
        raise TypeError
    return kind(**{name: value[name] for name in hints})


def shown_from_json(value: Any) -> tuple[str, str]:
    try:
        chain, key = value["shown"]
        return _text(chain), _text(key)
    except (KeyError, TypeError, ValueError) as e:
        raise ProtocolViolation("shown: malformed") from e


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


# -- control's end


class DataPlaneLink:
    """ports.DataPlane over the data process's socket. Calls go out one after another, in the order made.

    wait_s: how long a call waits for a data process that is not there (starting, or being restarted).
    """

    def __init__(self, run_dir: Path, *, wait_s: float = 10.0) -> None:
        self._socket = run_dir / DATA_SOCKET
        self._wait_s = wait_s
        self._turn = asyncio.Lock()
        self._session: aiohttp.ClientSession | None = None

    async def replace_all(self, routes: Sequence[PeerRoute], rules: Sequence[SessionRule]) -> None:
        """Say everything at once, as a control process does that has started anew; sessions not named are closed."""
        await self._call("POST", "/link/snapshot", snapshot_to_json(routes, rules))

    async def set_routes(self, routes: Sequence[PeerRoute]) -> None:
        await self._call("POST", "/link/routes", {"routes": [route_to_json(route) for route in routes]})

    async def set_network(self, network: Network) -> None:
        await self._call("POST", "/link/network", network_to_json(network))

    async def show(self, chain: str, key: str) -> None:
        """PEM files of the certificate that the listener shows from now on."""
        await self._call("POST", "/link/shown", {"shown": [chain, key]})

    async def open_session(self, rule: SessionRule) -> None:
        await self._call("POST", "/link/sessions", rule_to_json(rule))

    async def close_session(self, session_id: SessionId) -> None:
        await self._call("POST", "/link/sessions/close", {"session_id": session_id})

    async def sent_bytes(self, session_id: SessionId) -> Mapping[NodeId, int]:
        answer = await self._call("GET", f"/link/sent?session={quote(session_id, safe='')}", None)
        return {NodeId(node): int(size) for node, size in answer["sent"].items()}

    async def stats(self) -> Mapping[str, Any]:
        """Counters and levels of the data process."""
        return await self._call("GET", "/link/stats", None)

    async def figures(self, limit: int) -> Mapping[str, Any]:
        """What passes by session and partner (Channel.figures); at most `limit` sessions."""
        return await self._call("GET", f"/link/figures?limit={limit}", None)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _call(self, method: str, path: str, value: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Raises Unavailable(OVERLOADED) when the data process does not answer within `wait_s`."""
        async with self._turn:
            if self._session is None:
                self._session = _unix_session(self._socket)
            return await call_until(self._session, method, path, value, wait_s=self._wait_s)


async def pull_snapshot(
    run_dir: Path, *, wait_s: float
) -> tuple[Sequence[PeerRoute], Mapping[SessionId, SessionRule], tuple[str, str], Network]:
    """Ask control for everything; waits for it up to `wait_s`. Raises Unavailable(OVERLOADED), ProtocolViolation."""
    async with _unix_session(run_dir / CONTROL_SOCKET) as session:
        value = await call_until(session, "GET", "/link/snapshot", None, wait_s=wait_s)
    return *snapshot_from_json(value), shown_from_json(value), network_from_json(value.get("network"))


def _unix_session(socket: Path) -> aiohttp.ClientSession:
    connector = aiohttp.UnixConnector(str(socket), limit=1, force_close=True)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=10.0), trust_env=False)


async def call_until(
    session: aiohttp.ClientSession, method: str, path: str, value: Mapping[str, Any] | None, *, wait_s: float
) -> Mapping[str, Any]:
    """One call over a Unix socket, repeated while nobody answers there: every call of the link may be repeated."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    while True:
        try:
            async with session.request(method, f"http://link{path}", json=value) as response:
                answer = await response.json(content_type=None)
                if response.status == 200 and isinstance(answer, dict):
                    return answer
                raise ProtocolViolation(f"{path}: status {response.status}", kind=Kind.PEER_MALFORMED)
        except (aiohttp.ClientError, OSError, TimeoutError) as e:
            if loop.time() + _PAUSE_S >= deadline:
                raise Unavailable(f"{path}: the other process does not answer", kind=Kind.OVERLOADED) from e
        except ValueError as e:
            raise ProtocolViolation(f"{path}: answer is not JSON", kind=Kind.PEER_MALFORMED) from e
        await asyncio.sleep(_PAUSE_S)


# -- the data process's end

SetRoutes = Callable[[Sequence[PeerRoute]], Awaitable[Sequence[str]]]


class LinkDoor:
    """Handler of data.sock. The callables do the work; only control can reach this socket."""

    def __init__(
        self,
        *,
        set_routes: SetRoutes,
        set_network: Callable[[Network], None],
        show: Callable[[str, str], None],
        keep_sessions: Callable[[Mapping[SessionId, SessionRule]], None],
        open_session: Callable[[SessionRule], None],
        close_session: Callable[[SessionId], None],
        sent_bytes: Callable[[SessionId], Mapping[NodeId, int]],
        stats: Callable[[], Mapping[str, Any]],
        figures: Callable[[int], Mapping[str, Any]],
    ) -> None:
        self._set_routes = set_routes
        self._set_network = set_network
        self._show = show
        self._keep_sessions = keep_sessions
        self._open_session = open_session
        self._close_session = close_session
        self._sent_bytes = sent_bytes
        self._stats = stats
        self._figures = figures

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            status, value = 200, await self._answer(request)
        except GatewayError as error:
            status, value = 400, {"msg": str(error)}
        return web.Response(
            status=status, body=json.dumps(value).encode(), headers={"content-type": "application/json"}
        )

    async def _answer(self, request: web.BaseRequest) -> Mapping[str, Any]:
        match request.method, request.path:
            case "POST", "/link/routes":
                value = await _json(request)
                return {"problems": list(await self._set_routes(routes_from_json(value.get("routes"))))}
            case "POST", "/link/network":
                self._set_network(network_from_json(await _json(request)))
                return {}
            case "POST", "/link/shown":
                self._show(*shown_from_json(await _json(request)))
                return {}
            case "POST", "/link/snapshot":
                routes, rules = snapshot_from_json(await _json(request))
                problems = await self._set_routes(routes)
                self._keep_sessions(rules)
                return {"problems": list(problems)}
            case "POST", "/link/sessions":
                self._open_session(rule_from_json(await _json(request)))
                return {}
            case "POST", "/link/sessions/close":
                self._close_session(SessionId(str((await _json(request)).get("session_id"))))
                return {}
            case "GET", "/link/sent":
                return {"sent": self._sent_bytes(SessionId(request.query.get("session", "")))}
            case "GET", "/link/stats":
                return self._stats()
            case "GET", "/link/figures":
                return self._figures(_count(request.query.get("limit", "")))
            case _:
                raise ProtocolViolation("no such path", kind=Kind.NOT_FOUND)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 4):
        raise ProtocolViolation("limit: a number")
    return int(text)


async def _json(request: web.BaseRequest) -> Mapping[str, Any]:
    data = bytearray()
    async for piece in request.content.iter_any():
        data += piece
        if len(data) > BODY_BYTES:
            raise ProtocolViolation("body too large", kind=Kind.TOO_LARGE)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise ProtocolViolation("body is not JSON") from e
    if not isinstance(value, dict):
        raise ProtocolViolation("body must be an object")
    return value
