"""The OpenAPI document and page of the admin API."""

import json

from jsonschema import Draft202012Validator

from gateway.mgmt_plane.core.admin_messages import record_schemas, schemas
from gateway.mgmt_plane.rest.documentation import ADMIN_OPENAPI_PATH, admin_document, render
from specs.admin import OPEN, ROUTES
from tests.openapi.test_document import references

MADE = admin_document(version="0.1.0", server="http://127.0.0.1:7306")


def test_every_route_with_its_role_and_command() -> None:
    found = {
        operation["operationId"]: (method.upper(), path, operation)
        for path, methods in MADE["paths"].items()
        for method, operation in methods.items()
    }
    assert {name: (method, path) for name, (method, path, _) in found.items()} == {
        name: (route.method, route.path) for name, route in ROUTES.items()
    }
    for name, (method, path, operation) in found.items():
        for role in ROUTES[name].roles:
            assert role.value in operation["description"]
        assert bool(operation["security"]) == (name not in OPEN)
        assert ("requestBody" in operation) == (method == "POST")
        named = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
        assert all(f"{{{part}}}" in path for part in named)
        assert path.count("{") == len(named)


def test_schemas_are_schemas_and_references_lead_somewhere() -> None:
    for schema in MADE["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for reference in references(MADE):
        assert reference.rpartition("/")[2] in MADE["components"]["schemas"]
    assert not set(record_schemas()) & set(schemas()["$defs"])
    assert json.loads(json.dumps(MADE)) == MADE


def test_nothing_secret_is_described_and_the_page_fetches_nothing() -> None:
    text = json.dumps(MADE)
    assert "auth_credential" not in text.replace("our_auth", "")
    page = render(MADE, at=ADMIN_OPENAPI_PATH)
    assert all(f'id="{name}"' in page for name in ROUTES)
    assert "<script" not in page
    assert "<link" not in page
    assert " src=" not in page
