"""Where artifacts lie: addresses of `system.storage` and the names of objects below them (part 3 section 7).

Pure text. Reading and writing there is `gateway.sdk.storage` and the modules beside it.
"""

from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Final
from urllib.parse import unquote, urlsplit

from gateway.sdk.environment import Artifact
from gateway.sdk.result import Code, ComponentError

DEFAULT_BUCKET: Final = "storage"
"""Where the address names none, as FATE-Flow's never does."""
METADATA: Final = "metadata"
_PORTS: Final = {"s3": 9000, "hdfs": 8020}
_WORDS: Final = {"true": True, "false": False}


@unique
class Layout(StrEnum):
    """How namespace and name become the path of an object."""

    SLASH = "slash"
    """`<namespace>/<name>/data_0`"""
    DASH = "dash"
    """`<namespace>-<name>/data_0`, the GUIDE's other proposal."""


@dataclass(frozen=True, slots=True)
class Place:
    """A storage address. root: the bucket of s3, the folder of hdfs and file; tls: s3 over TLS, an extension."""

    scheme: str
    root: str
    host: str = ""
    port: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    layout: Layout = Layout.SLASH


def read_place(address: str) -> Place:
    """Read `file://<path>`, `s3://<host>:<port>?username=&password=&bucket=` or `hdfs://…&dir=` (A-034).

    Values are percent-decoded and `+` stays a plus sign. Beyond the standard, `tls=true` and `layout=dash` are known.
    Raises ComponentError(STORAGE); the address, which may hold a password, stays out of the message.
    """
    scheme, separator, _ = address.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in {"file", *_PORTS}:
        raise _bad("must begin with file://, s3:// or hdfs://")
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _bad("is no address") from None
    if scheme == "file":
        if parts.netloc not in {"", "localhost"}:
            raise _bad("file:// needs an absolute path and no host")
        return Place(scheme, _folder(unquote(parts.path)), layout=_layout(_query(parts.query)))
    if not host or parts.path.strip("/") or parts.fragment:
        raise _bad(f"{scheme}:// needs host and port, and no path")
    query = _query(parts.query)
    return Place(
        scheme,
        _bucket(query.get("bucket") or DEFAULT_BUCKET) if scheme == "s3" else _folder(query.get("dir") or "/"),
        host,
        port or _PORTS[scheme],
        query.get("username") or unquote(parts.username or ""),
        query.get("password") or unquote(parts.password or ""),
        tls=_word(query.get("tls") or "false"),
        layout=_layout(query),
    )


def object_path(place: Place, artifact: Artifact, item: str) -> str:
    """Path of `data_<partition>` or `metadata` of an artifact, below the bucket of s3, from the root otherwise (A-035).

    Raises ComponentError(STORAGE) for names that are no plain folder names: they carry ids that another node chose.
    """
    for part in (artifact.namespace, artifact.name):
        # isprintable: no control characters and no half surrogates, which have no encoding.
        if not part.isprintable() or not part or part.startswith(".") or "/" in part or len(part.encode()) > 200:
            raise ComponentError(Code.STORAGE, "namespace and name must each be one plain folder name")
    joint = "-" if place.layout is Layout.DASH else "/"
    path = f"{artifact.namespace}{joint}{artifact.name}/{item}"
    return path if place.scheme == "s3" else f"{place.root.rstrip('/')}/{path}"


def data_name(partition: int) -> str:
    return f"data_{partition}"


def storage_secrets(address: str) -> tuple[str, ...]:
    """Texts of a storage address that must not reach a log: the password, as written and percent-decoded (A-amb 16)."""
    query = address.partition("?")[2]
    written = [part.partition("=")[2] for part in query.split("&") if part.partition("=")[0].lower() == "password"]
    userinfo = address.partition("://")[2].partition("/")[0].rpartition("@")[0].partition(":")[2]
    return tuple({text for raw in (*written, userinfo) for text in (raw, unquote(raw)) if text})


def _bad(problem: str) -> ComponentError:
    return ComponentError(Code.STORAGE, f"system.storage: {problem}")


def _query(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in query.split("&") if query else []:
        name, _, value = part.partition("=")
        if name.lower() in found:
            raise _bad(f"{name.lower()[:40]} is given twice")
        found[name.lower()] = unquote(value)
    return found


def _folder(path: str) -> str:
    if not path.startswith("/") or "\x00" in path or ".." in path.split("/"):
        raise _bad("the folder must be an absolute path")
    return path


def _bucket(name: str) -> str:
    plain = name.replace("-", "").replace(".", "")
    if not (3 <= len(name) <= 63 and plain.isascii() and plain.isalnum() and name == name.lower()):
        raise _bad("bucket must be 3 to 63 lower-case letters, digits, dots and hyphens")
    return name


def _layout(query: dict[str, str]) -> Layout:
    try:
        return Layout(query.get("layout") or Layout.SLASH)
    except ValueError:
        raise _bad("layout must be slash or dash") from None


def _word(text: str) -> bool:
    if text.lower() not in _WORDS:
        raise _bad("tls must be true or false")
    return _WORDS[text.lower()]
