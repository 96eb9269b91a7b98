"""/openapi.json and /docs: the contract that the edge enforces, as a document and as a page. No token, no CDN.

Both hold nothing but the standard and this node's public addresses.
"""

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Final

from aiohttp import web

from gateway.mgmt_plane.core.admin_messages import record_schemas
from specs import openapi
from specs.admin import BASE
from specs.routes import Side

OPENAPI_PATH: Final = "/openapi.json"
PAGE_PATH: Final = "/docs"
ADMIN_OPENAPI_PATH: Final = f"{BASE}/openapi.json"
ADMIN_PAGE_PATH: Final = f"{BASE}/docs"
OPEN_PATHS: Final = frozenset({OPENAPI_PATH, PAGE_PATH, ADMIN_OPENAPI_PATH, ADMIN_PAGE_PATH})

_CSS: Final = """
:root{color-scheme:light dark;--line:#8885;--soft:#8882;--link:#2563eb}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}h2{margin-top:2.5rem;border-bottom:1px solid var(--line)}
details{border:1px solid var(--line);border-radius:6px;margin:.4rem 0}
summary{cursor:pointer;padding:.4rem .7rem;display:flex;gap:.8rem;flex-wrap:wrap}
summary b{min-width:3rem}summary code{flex:1}summary span{opacity:.7}
details>div{padding:0 .9rem .7rem}table{border-collapse:collapse;width:100%}
td,th{border-top:1px solid var(--line);padding:.25rem .5rem;text-align:left;vertical-align:top}
pre{background:var(--soft);padding:.6rem;overflow:auto;border-radius:6px}a{color:var(--link)}
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()
_SECURITY: Final = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def read_files() -> dict[str, Any]:
    """The files of specs/schemas that the document is made of."""
    folder = resources.files("specs").joinpath("schemas")
    return {name: json.loads(folder.joinpath(name).read_text("utf-8")) for name in (*openapi.FILES, openapi.ADMIN)}


def document(*, version: str, servers: Mapping[Side, str]) -> dict[str, Any]:
    """The OpenAPI document of this node."""
    return openapi.build(read_files(), version=version, servers=servers)


def admin_document(*, version: str, server: str) -> dict[str, Any]:
    """The OpenAPI document of the admin API."""
    return openapi.build_admin(read_files(), version=version, server=server, records=record_schemas())


def add_documentation(
    app: web.Application, made: Mapping[str, Any], *, path: str = OPENAPI_PATH, page_path: str = PAGE_PATH
) -> None:
    """Serve the document and its page on an application whose door lets OPEN_PATHS through."""
    text = json.dumps(made, ensure_ascii=False).encode()
    page = render(made, at=path).encode()

    async def as_json(_: web.Request) -> web.Response:
        return web.Response(body=text, content_type="application/json", headers=_SECURITY)

    async def as_page(_: web.Request) -> web.Response:
        return web.Response(body=page, content_type="text/html", charset="utf-8", headers=_SECURITY)

    app.router.add_get(path, as_json)
    app.router.add_get(page_path, as_page)


def render(made: Mapping[str, Any], *, at: str = OPENAPI_PATH) -> str:
    """The page: every operation with its parameters, body, answer and example. Nothing in it runs."""
    info = made["info"]
    by_tag: dict[str, list[str]] = {tag["name"]: [] for tag in made["tags"]}
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            by_tag[operation["tags"][0]].append(_operation(method.upper(), path, operation, made))
    sections = "".join(f"<h2>{_text(tag)}</h2>{''.join(parts)}" for tag, parts in by_tag.items() if parts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{_text(info['title'])} API</title><style>{_CSS}</style></head><body>"
        f"<h1>{_text(info['title'])} {_text(info['version'])}</h1><p>{_text(info['summary'])}. "
        f'{_text(info["description"])} As a document: <a href="{at}">{at}</a>.</p>'
        f"{sections}</body></html>"
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _json(value: object) -> str:
    return f"<pre>{_text(json.dumps(value, ensure_ascii=False, indent=2))}</pre>"


def _operation(method: str, path: str, operation: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    parts = [f"<p>{_text(operation['description'])}</p>"]
    if operation["parameters"]:
        rows = [
            (each["name"], f"{each['in']}{', required' if each['required'] else ''}", _rule(each["schema"], made))
            for each in operation["parameters"]
        ]
        parts.append(_table(("parameter", "where", "rule"), rows))
    media = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if media is not None:
        parts.append(_members("body", media["schema"], made))
        if "example" in media:
            parts.append(_json(media["example"]))
    answer = operation["responses"]["200"].get("content", {}).get("application/json")
    if answer is not None:
        parts.append(_members("answer", *_data(answer["schema"], made)))
    name = operation["operationId"]
    return (
        f'<details id="{_text(name)}"><summary><b>{method}</b><code>{_text(path)}</code>'
        f"<span>{_text(name)}</span></summary><div>{''.join(parts)}</div></details>"
    )


def _data(schema: Mapping[str, Any], made: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The part of an answer that is worth a table: without the envelope, and of a list one entry."""
    schema = _resolved(schema, made)
    if schema.get("type") == "array":
        return _data(schema["items"], made)
    both = schema.get("allOf", ())
    if both and "anyOf" in both[-1]:
        return both[1]["anyOf"][0]["properties"]["data"], made
    if both:
        shown = [_resolved(each, made) for each in both]
        merged = {name: rule for each in shown for name, rule in each.get("properties", {}).items()}
        return {"properties": merged, "required": [name for each in shown for name in each.get("required", ())]}, made
    return schema, made


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{_text(each)}</th>" for each in head)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _resolved(schema: Mapping[str, Any], made: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: Mapping[str, Any] = made["components"]["schemas"][reference.rpartition("/")[2]]
    return found


def _members(title: str, schema: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    schema = _resolved(schema, made)
    required = schema.get("required", ())
    rows = [
        (name, "required" if name in required else "", _rule(rule, made))
        for name, rule in schema.get("properties", {}).items()
    ]
    return _table((title, "", "rule"), rows) if rows else ""


def _rule(schema: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """A schema in a few words."""
    schema = _resolved(schema, made)
    kind = schema.get("type", "")
    words = [" or ".join(kind) if isinstance(kind, list) else str(kind)]
    if "enum" in schema:
        words.append(f"one of {', '.join(map(str, schema['enum']))}")
    for key, said in (
        ("maxLength", "at most {} characters"),
        ("maxItems", "at most {} entries"),
        ("minimum", "from {}"),
    ):
        if key in schema:
            words.append(said.format(schema[key]))
    return ", ".join(word for word in words if word)
