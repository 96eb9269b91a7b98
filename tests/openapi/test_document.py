"""The OpenAPI document: complete, valid against its own rules, and the very thing the edge enforces."""

import json
import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from jsonschema import Draft202012Validator

from gateway.errors import Kind, ProtocolViolation
from gateway.mgmt_plane.core.messages import check, checked_routes
from gateway.mgmt_plane.rest.admin_server import admin_app
from gateway.mgmt_plane.rest.documentation import (
    OPENAPI_PATH,
    PAGE_PATH,
    add_documentation,
    document,
    read_files,
    render,
)
from gateway.model import Limits
from specs import openapi
from specs.routes import ROUTES, Side
from tests.mgmt.world import World

TOKEN = "t" * 40
FILES = read_files()
SERVERS = {Side.EDGE: "https://bank.example:7304", Side.PLATFORM: "http://127.0.0.1:7305"}
MADE = document(version="0.1.0", servers=SERVERS)
JSON_ROUTES = sorted(name for name in ROUTES if not name.startswith("chan."))
EXAMPLES: Mapping[str, Any] = FILES[openapi.EXAMPLES]["routes"]


def operations() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, methods in MADE["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key == "$ref":
                yield each
            else:
                yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_every_route_is_there_once_with_its_verb_and_path() -> None:
    found = {operation["operationId"]: (method.upper(), path) for path, method, operation in operations()}
    assert found == {name: (route.method, route.path) for name, route in ROUTES.items()}
    assert len(list(operations())) == len(ROUTES)


def test_the_form_is_openapi_3_1() -> None:
    assert MADE["openapi"] == "3.1.0"
    assert {"title", "version"} <= set(MADE["info"])
    for name in MADE["components"]["schemas"]:
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
    for reference in references(MADE):
        head, _, name = reference.rpartition("/")
        assert head == "#/components/schemas"
        assert name in MADE["components"]["schemas"]
    schemes = set(MADE["components"]["securitySchemes"])
    for _, method, operation in operations():
        assert operation["responses"]["200"]["description"]
        assert all(set(way) <= schemes for way in operation["security"])
        assert ("requestBody" in operation) == (method == "post")
        names = [(each["in"], each["name"]) for each in operation["parameters"]]
        assert len(names) == len(set(names))
        assert {each["in"] for each in operation["parameters"]} <= {"query", "header"}


def test_every_schema_is_a_schema() -> None:
    for schema in MADE["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for _, _, operation in operations():
        for media in operation.get("requestBody", {}).get("content", {}).values():
            Draft202012Validator.check_schema(media.get("schema", {}))
        for parameter in operation["parameters"]:
            Draft202012Validator.check_schema(parameter["schema"])


@pytest.mark.parametrize("name", JSON_ROUTES)
def test_the_example_is_valid_for_the_document_and_for_the_edge(name: str) -> None:
    example = EXAMPLES[name]
    if name in checked_routes():
        assert check(name, example) == example
    operation = next(each for _, _, each in operations() if each["operationId"] == name)
    shared = {"components": MADE["components"]}
    if ROUTES[name].method == "POST":
        media = operation["requestBody"]["content"]["application/json"]
        assert media["example"] == example
        Draft202012Validator({**media["schema"], **shared}).validate(example)
    else:
        known = {each["name"]: each for each in operation["parameters"] if each["in"] == "query"}
        assert set(example) <= set(known)
        for key, parameter in known.items():
            assert key in example or not parameter["required"]
            if key in example:
                Draft202012Validator({**parameter["schema"], **shared}).validate(example[key])


def test_every_request_has_a_schema_that_the_edge_checks() -> None:
    assert set(JSON_ROUTES) <= checked_routes()
    assert set(FILES[openapi.ANSWERS]["routes"]) == set(JSON_ROUTES)
    assert set(EXAMPLES) == set(JSON_ROUTES)


@pytest.mark.parametrize("name", [name for name in JSON_ROUTES if name in checked_routes()])
def test_what_the_schema_requires_the_edge_requires(name: str) -> None:
    schema = openapi.request_schemas(FILES)[0][name]
    for member in schema.get("required", ()):
        lacking = {key: value for key, value in EXAMPLES[name].items() if key != member}
        with pytest.raises(ProtocolViolation) as caught:
            check(name, lacking)
        assert caught.value.kind is Kind.MALFORMED
        assert member in str(caught.value)
    assert check(name, {**EXAMPLES[name], "unknown": 1})["unknown"] == 1


def test_two_meanings_of_one_name_are_refused() -> None:
    files = {**FILES, "control.json": {"routes": {}, "$defs": {"time": {"type": "string"}}}}
    with pytest.raises(ValueError, match="time"):
        openapi.build(files, version="1", servers={})


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_shows_every_operation_and_fetches_nothing() -> None:
    text = render(MADE)
    page = _Page()
    page.feed(text)
    shown = {attributes.get("id") for tag, attributes in page.tags if tag == "details"}
    assert shown == set(ROUTES)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "form"}
    assert "url(" not in text
    assert [attributes["href"] for tag, attributes in page.tags if tag == "a"] == ["/openapi.json"]


def test_the_page_escapes() -> None:
    made = document(version="<script>alert(1)</script>", servers={})
    assert "<script>" not in render(made)


async def test_served_without_a_token_and_nothing_else_is() -> None:
    a = World().node("A")
    app = admin_app(a.admin.routes(), token=TOKEN, limits=Limits(), journal=a.journal)
    add_documentation(app, MADE)
    server = TestServer(app)
    await server.start_server(access_log=None)
    try:
        async with ClientSession(f"http://{server.host}:{server.port}") as session:
            async with session.get("/openapi.json") as answer:
                assert answer.status == 200
                assert await answer.json() == json.loads(json.dumps(MADE))
            async with session.get("/docs") as answer:
                assert answer.status == 200
                assert answer.content_type == "text/html"
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            for path in ("/v1/admin/node", "/docs/", "/openapi.json/", "/docs/../v1/admin/node"):
                async with session.get(path) as answer:
                    assert answer.status == 401
            for path in (OPENAPI_PATH, PAGE_PATH):
                async with session.post(path) as answer:
                    assert answer.status == 405
    finally:
        await server.close()
