"""A stand-in for `interconn serve`: listens where node.toml says, answers the admin API a little, obeys SIGTERM.

    python stand_in_node.py [--stubborn] [--broken] [--child] CONFIG

--stubborn ignores SIGTERM, --broken ends with an error at once, --child starts a process that outlives it.
"""

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from gateway import config as node_config


def main(flags: list[str], file: Path) -> None:
    if "--broken" in flags:
        sys.exit("interconn: something is wrong")
    config = node_config.load(file)
    token = config.path(config.admin.token_file).read_text().strip()

    class Admin(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            good = self.headers["Authorization"] == f"Bearer {token}" and self.path == "/v1/admin/node"
            data = json.dumps({"node_id": config.node.node_id}).encode()
            self.send_response(200 if good else 404)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        allow_reuse_address = True  # as aiohttp does; a listener still excludes another

    try:
        servers = [Server((place.host, place.port), Admin) for place in (config.edge, config.platform, config.admin)]
    except OSError as error:
        sys.exit(f"interconn: {error}")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(config.key_file(config.keys.tls_chain), config.key_file(config.keys.tls_key))
    servers[0].socket = context.wrap_socket(servers[0].socket, server_side=True, do_handshake_on_connect=False)
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    if "--child" in flags:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    if "--stubborn" in flags:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (config.path(config.paths.run) / "ready.json").write_text(json.dumps({"pid": os.getpid()}))
    while True:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:-1], Path(sys.argv[-1]))
