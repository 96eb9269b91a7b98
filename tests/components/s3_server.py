"""A small S3 server on a real socket: objects, listing, parts; every call's Signature Version 4 is checked.

Written from the published description of the signature, apart from the client that is tested with it.
"""

import hashlib
import hmac
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, quote, unquote, urlsplit

USER, PASSWORD = "lake-user", "p@ss/wörd+1"


@dataclass
class Bucketed:
    port: int = 0
    objects: dict[str, bytes] = field(default_factory=dict)
    """`<bucket>/<key>` -> content."""
    buckets: set[str] = field(default_factory=set)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)


def signature(handler: BaseHTTPRequestHandler, password: str) -> str:
    """The signature that the request should carry."""
    parts = urlsplit(handler.path)
    scheme, _, rest = handler.headers["authorization"].partition(" ")
    assert scheme == "AWS4-HMAC-SHA256"
    given = dict(item.strip().split("=", 1) for item in rest.split(","))
    _, day, region, service, end = given["Credential"].split("/")
    names = given["SignedHeaders"].split(";")
    query = "&".join(
        f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in sorted(parse_qsl(parts.query, True))
    )
    lines = [
        handler.command,
        quote(unquote(parts.path), safe="/-_.~"),
        query,
        *(f"{name}:{' '.join(handler.headers[name].split())}" for name in names),
        "",
        given["SignedHeaders"],
        handler.headers["x-amz-content-sha256"],
    ]
    scope = f"{day}/{region}/{service}/{end}"
    text = "\n".join(
        [scheme, handler.headers["x-amz-date"], scope, hashlib.sha256("\n".join(lines).encode()).hexdigest()]
    )
    key = f"AWS4{password}".encode()
    for step in (day, region, service, end):
        key = hmac.digest(key, step.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Bucketed

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status: int, code: str) -> None:
        words = f"<Error><Code>{code}</Code><Message>secret of {USER}</Message><Resource>r</Resource></Error>"
        self.answer(status, words.encode(), **{"Content-Type": "application/xml"})

    def handle_one(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, True))
        path = unquote(parts.path).lstrip("/")
        bucket, _, key = path.partition("/")
        state = self.state
        state.calls.append(f"{self.command} {path}")
        signed = self.headers["x-amz-content-sha256"]
        given = self.headers.get("authorization", "")
        if f"Credential={USER}/" not in given or not given.endswith(f"Signature={signature(self, PASSWORD)}"):
            self.error(403, "SignatureDoesNotMatch")
        elif signed != hashlib.sha256(body).hexdigest():
            self.error(400, "XAmzContentSHA256Mismatch")
        elif not key and self.command == "PUT":
            state.buckets.add(bucket)
            self.answer(200)
        elif bucket not in state.buckets:
            self.error(404, "NoSuchBucket")
        elif not key:
            keys = [k.partition("/")[2] for k in sorted(state.objects) if k.startswith(f"{bucket}/{query['prefix']}")]
            found = "".join(
                f"<Contents><Key>{k}</Key><LastModified>2026-11-22T00:00:00.000Z</LastModified><Size>1</Size></Contents>"
                for k in keys
            )
            text = f"<ListBucketResult><Name>{bucket}</Name><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
            self.answer(200, text.encode(), **{"Content-Type": "application/xml"})
        elif self.command == "POST" and "uploads" in query:
            upload = uuid.uuid4().hex
            state.parts[upload] = {}
            text = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            self.answer(200, text.encode(), **{"Content-Type": "application/xml"})
        elif self.command == "PUT" and "uploadId" in query:
            state.parts[query["uploadId"]][int(query["partNumber"])] = body
            self.answer(200, ETag='"e"')
        elif self.command == "POST":
            pieces = state.parts.pop(query["uploadId"])
            state.objects[path] = b"".join(pieces[number] for number in sorted(pieces))
            text = "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"
            self.answer(200, text.encode(), **{"Content-Type": "application/xml"})
        elif self.command == "PUT":
            state.objects[path] = body
            self.answer(200, ETag='"e"')
        elif self.command == "DELETE":
            state.objects.pop(path, None)
            self.answer(204)
        elif path in state.objects:
            self.answer(200, state.objects[path], ETag='"e"')
        else:
            self.error(404, "NoSuchKey")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_one  # noqa: N815


@contextmanager
def s3_server() -> Iterator[Bucketed]:
    state = Bucketed()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
