"""The rival: one bare aiohttp process that does the same work with nothing around it.

`python -m bench.mgmt.rival JSON`: mutual TLS 1.2+, ECDSA P-256 over the same bytes, clock window, nonces in a set,
JSON, and one SQLite transaction (WAL, synchronous=FULL) for each write, made on a thread of its own. It has no routes,
schema, access rules, audit trail, log or second process, and its nonces do not survive a restart.
"""

import asyncio
import base64
import json
import sqlite3
import ssl
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from bench.mgmt.wire import ECDSA, covered
from gateway.data_plane.io.process import loop_factory

WINDOW_MS = 300_000


def database(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE audit (audit_id TEXT PRIMARY KEY, peer TEXT, status TEXT, body TEXT)")
    connection.execute("CREATE INDEX ix_audit_peer_status ON audit (peer, status)")
    return connection


def write(connection: sqlite3.Connection, verb: str, peer: str, body: dict[str, Any]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    if verb == "apply":
        values = (body["audit_id"], peer, "APPLIED", json.dumps(body))
        connection.execute("INSERT INTO audit VALUES (?, ?, ?, ?)", values)
    else:
        connection.execute(
            "UPDATE audit SET status = 'TERMINATED' WHERE audit_id = ? AND peer = ?", (body["audit_id"], peer)
        )
    connection.execute("COMMIT")


async def main() -> None:
    config = json.loads(sys.argv[1])
    signing = x509.load_pem_x509_certificates(Path(config["signing"]).read_bytes())[0].public_key()
    assert isinstance(signing, EllipticCurvePublicKey)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(config["chain"], config["key"])
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(config["client_ca"])
    connection = database(Path(config["database"]))
    thread = ThreadPoolExecutor(max_workers=1)
    nonces: set[str] = set()
    loop = asyncio.get_running_loop()

    async def serve(request: web.Request) -> web.Response:
        body, head = await request.read(), request.headers
        stamp, nonce = head["x-timestamp"], head["x-nonce"]
        if abs(time.time() * 1000 - int(stamp)) > WINDOW_MS or nonce in nonces:
            return web.json_response({"code": 1})
        source, target = head["x-source-node-id"], head["x-target-node-id"]
        text = covered(request.method, request.path, request.query_string, source, target, nonce, stamp, body)
        signing.verify(base64.b64decode(head["x-auth-sign"]), text, ECDSA)
        nonces.add(nonce)
        if request.method == "POST":
            verb = request.path.rpartition("/")[2]
            await loop.run_in_executor(thread, write, connection, verb, source, json.loads(body))
        answer = b'{"code":0,"msg":"success","data":{}}'
        return web.Response(body=answer, headers={"content-type": "application/json"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
