"""Entry of every child process: `python -m bench.spike.role NAME LOOP JSON`. A client waits for a line on its input."""

import asyncio
import json
import sys

import uvloop

from bench.spike import clients, servers

SERVERS = {"gateway": servers.gateway, "edge": servers.edge, "sink": servers.sink}
CLIENTS = {
    "sender": clients.sender,
    "receiver": clients.receiver,
    "bulk": clients.bulk,
    "prober": clients.prober,
}


def main() -> None:
    name, loop, config = sys.argv[1:]
    if name in CLIENTS:
        print("ready", flush=True)
        sys.stdin.readline()
    role = (SERVERS | CLIENTS)[name](json.loads(config))
    if loop == "uvloop":
        uvloop.run(role)
    else:
        asyncio.run(role)


if __name__ == "__main__":
    main()
