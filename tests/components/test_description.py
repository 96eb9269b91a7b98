"""Reading self-descriptions, and parameters to environment text and back."""

import json
from importlib.resources import files

import jsonschema
import pytest

from specs.description import (
    BUILTIN,
    DescriptionError,
    ParameterError,
    builtin_description,
    builtin_descriptions,
    decode_undeclared,
    encode_value,
    parse_bool,
    parse_description,
    parse_validator,
    read_lenient_json,
)

MINIMAL = {
    "componentName": "SetCross",
    "title": "Set intersection",
    "provider": "demo",
    "version": "0.1",
    "description": "ECDH intersection",
    "roleList": ["guest", "host"],
    "desVersion": "1.2.0",
    "storageEngine": ["s3", "file"],
    "inputParam": [
        {
            "name": "key_column",
            "title": "Key",
            "description": "join column",
            "type": "string",
            "optional": "false",
            "defaultValue": "id",
            "validator": "regular:'[A-Za-z_]+'",
        }
    ],
    "inputData": [{"name": "train_data", "description": "table", "category": "dataset", "dataFormat": ["csv", "zip"]}],
    "outputData": [{"name": "data0", "description": "rows", "category": "dataset", "dataFormat": ["csv"]}],
    "result": [{"resultCode": "0", "resultMessage": "ok"}, {"resultCode": "4001", "resultMessage": "column missing"}],
}


def described(*parameters: dict[str, object], **top: object) -> str:
    items = [{"title": "t", "description": "d", **item} for item in parameters]
    return json.dumps({**MINIMAL, "inputParam": items, **top}, indent=1)


@pytest.mark.req("A-001")
def test_round_trip_keeps_everything() -> None:
    text = json.dumps({**MINIMAL, "computeEngine": ["spark"]}, ensure_ascii=False)
    description = parse_description(text, strict=True)
    assert description.key == ("SetCross", "demo", "0.1")
    assert json.loads(description.to_json()) == json.loads(text)
    assert parse_description(description.to_json(), strict=True).to_json() == description.to_json()


@pytest.mark.req("A-002")
@pytest.mark.parametrize("key", ["componentName", "provider", "version", "roleList", "storageEngine"])
@pytest.mark.parametrize("value", [None, "", [], 7])
def test_missing_key_is_named(key: str, value: object) -> None:
    raw = {name: item for name, item in MINIMAL.items() if name != key}
    with pytest.raises(DescriptionError, match=key):
        parse_description(json.dumps(raw))
    with pytest.raises(DescriptionError, match=key) as caught:
        parse_description(json.dumps({**raw, key: value}))
    assert caught.value.key == key


@pytest.mark.req("A-003")
def test_trailing_commas_are_read_and_not_written() -> None:
    text = json.dumps(MINIMAL, indent=1).replace("\n ]", ",\n ]").replace("}\n]", "},\n]").rstrip("}") + ",}"
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    description = parse_description(text)
    assert json.loads(description.to_json()) == MINIMAL


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("[", 1),
        ('{"a":1\n,,}', 2),
        ('{"a":\n1\n"b":2}', 3),
        ('{"a":1,\n"a":2}', 2),
        ('{"a":\n\n01}', 3),
        ('{"a":1}\n x', 2),
        ('{"a":"\n"}', 1),
        ("[" * 40, 1),
        ('{"a": NaN}', 1),
        ('{"a": 1e999}', 1),
    ],
)
def test_broken_json_names_the_line(text: str, line: int) -> None:
    with pytest.raises(DescriptionError) as caught:
        read_lenient_json(text)
    assert caught.value.line == line


def test_wrong_item_names_key_and_line() -> None:
    text = described({"name": "a", "type": "int"}, {"name": "b", "type": "int", "validator": "nonsense"})
    with pytest.raises(DescriptionError) as caught:
        parse_description(text)
    assert caught.value.key == "inputParam[1].validator"
    assert '"nonsense"' in text.splitlines()[caught.value.line - 1]


@pytest.mark.req("A-004")
@pytest.mark.parametrize(
    ("written", "optional"),
    [(True, True), (False, False), ("true", True), ("false", False), ("False", False), (None, True)],
)
def test_optional_as_text_or_boolean(written: object, optional: bool) -> None:
    item: dict[str, object] = {"name": "a", "type": "int"}
    if written is not None:
        item["optional"] = written
    assert parse_description(described(item)).input_params["a"].optional is optional


@pytest.mark.parametrize("written", ["yes", "1", 1, 0, [], ""])
def test_optional_is_nothing_else(written: object) -> None:
    with pytest.raises(DescriptionError, match="optional"):
        parse_description(described({"name": "a", "type": "int", "optional": written}))


@pytest.mark.req("A-005")
def test_unknown_keys_and_types_survive() -> None:
    text = described(
        {"name": "a", "type": "matrix", "UIType": "hologram", "colour": "red"},
        computeEngine=["spark"],
        x={"y": [1, None]},
    )
    description = parse_description(text, strict=True)
    assert description.extra["computeEngine"] == ["spark"]
    assert description.input_params["a"].type == "matrix"
    assert description.input_params["a"].ui_type == "hologram"
    assert description.input_params["a"].extra == {"colour": "red"}
    assert json.loads(description.to_json()) == json.loads(text)


@pytest.mark.req("A-006")
@pytest.mark.parametrize(
    ("type_", "validator", "good", "bad"),
    [
        ("int", "(0,1000)", [1, 999, "5"], [0, 1000, -3, "1001"]),
        ("float", "(0,1)", [0.5, "0.25"], [0.0, 1.0, 7]),
        ("float", "[0,1)", [0.0, 0.5], [1.0]),
        ("number", "(,5)", [-1e9, 4.9], [5]),
        ("string", "regular:'[A-Za-z_]+'", ["id", "A_b"], ["id1", "", "a b", "id\n"]),
        ("string", "regular-[a-c]{2}", ["ab"], ["abc", "zz"]),
    ],
)
def test_validators_are_enforced(type_: str, validator: str, good: list[object], bad: list[object]) -> None:
    description = parse_description(described({"name": "a", "type": type_, "validator": validator}))
    for value in good:
        assert description.resolve_parameters({"a": value}) == {"a": encode_value(value)}
    for value in bad:
        with pytest.raises(ParameterError, match="parameter a"):
            description.resolve_parameters({"a": value})


@pytest.mark.parametrize("text", ["0..5", "(1)", "(a,b)", "(5,1)", "regular:'['", "(1,2"])
def test_foreign_validators_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_validator(text)


@pytest.mark.req("A-007")
def test_binding_data() -> None:
    item = {
        "name": "a",
        "type": "string",
        "bindingData": [{"label": "L1", "value": "l1"}, {"label": "L2", "value": "l2"}],
    }
    description = parse_description(
        described(item, {"name": "b", "type": "string", "bindingData": "call_function getKV()"})
    )
    assert description.resolve_parameters({"a": "l2"}) == {"a": "l2"}
    with pytest.raises(ParameterError, match="l3"):
        description.resolve_parameters({"a": "l3"})
    assert description.input_params["b"].dynamic_binding == "call_function getKV()"
    assert description.resolve_parameters({"b": "anything"}) == {"b": "anything"}
    with pytest.raises(DescriptionError, match="bindingData"):
        parse_description(described({"name": "a", "type": "string", "bindingData": "getKV()"}))


@pytest.mark.req("A-008")
@pytest.mark.parametrize(
    ("written", "read"),
    [("", ()), ([], ()), (["optimizer.sgd", "init_param"], ("optimizer.sgd", "init_param")), (None, ())],
)
def test_depends_on(written: object, read: tuple[str, ...]) -> None:
    assert (
        parse_description(described({"name": "a", "type": "int", "dependsOn": written})).input_params["a"].depends_on
        == read
    )


@pytest.mark.req("A-009")
@pytest.mark.parametrize(
    ("key", "category"), [("inputData", "report"), ("outputData", "datasets"), ("inputData", "picture")]
)
def test_categories_in_strict_mode(key: str, category: str) -> None:
    text = described(**{key: [{"name": "x", "description": "d", "category": category}]})
    assert parse_description(text)
    with pytest.raises(DescriptionError, match=category) as caught:
        parse_description(text, strict=True)
    assert caught.value.key == f"{key}[0].category"


@pytest.mark.req("A-010")
def test_first_format_is_the_default() -> None:
    description = parse_description(json.dumps(MINIMAL))
    assert description.input_data["train_data"].default_format == "csv"
    bare = parse_description(described(inputData=[{"name": "x", "category": "model"}]))
    assert bare.input_data["x"].default_format is None


@pytest.mark.req("A-016")
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (-3, "-3"),
        (0.05, "0.05"),
        (True, "true"),
        (False, "false"),
        ("007", "007"),
        ({"init_method": "zeros"}, '{"init_method": "zeros"}'),
        ([1, "a", None, True], '[1, "a", null, true]'),
        ("", ""),
        ("ü", "ü"),
    ],
)
def test_values_become_text(value: object, text: str) -> None:
    assert encode_value(value) == text


@pytest.mark.parametrize(
    "value", [None, float("nan"), float("inf"), [float("nan")], {"a": object()}, "a\x00b", "x" * 70000, 1j]
)
def test_values_without_text(value: object) -> None:
    with pytest.raises(ValueError):
        encode_value(value)


@pytest.mark.req("A-017")
def test_booleans_are_words() -> None:
    assert [parse_bool(text) for text in ("true", "True", "TRUE", "false", "False")] == [True, True, True, False, False]
    for text in ("1", "0", "yes", "None", "", "truee"):
        with pytest.raises(ValueError):
            parse_bool(text)
    description = parse_description(described({"name": "a", "type": "boolean"}))
    assert description.decode_parameters({"a": "True"}) == {"a": True}
    for text in ("1", "yes", "None"):
        with pytest.raises(ParameterError):
            description.decode_parameters({"a": text})


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        ("string", "1", "1"),
        ("string", "true", "true"),
        ("int", "12", 12),
        ("integer", "None", None),
        ("integer", "12", 12),
        ("float", "0.5", 0.5),
        ("number", "3", 3.0),
        ("object", '{"a": [1]}', {"a": [1]}),
        ("matrix", "[[1]]", [[1]]),
    ],
)
def test_declared_types_decide(type_: str, text: str, value: object) -> None:
    found = parse_description(described({"name": "a", "type": type_})).decode_parameters({"a": text})["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("type_", "text"), [("int", "1.5"), ("int", "0x1"), ("float", "nan"), ("object", "{'a': 1}"), ("int", "")]
)
def test_wrong_texts_are_refused(type_: str, text: str) -> None:
    with pytest.raises(ParameterError, match="parameter a"):
        parse_description(described({"name": "a", "type": type_})).decode_parameters({"a": text})


def test_undeclared_values() -> None:
    texts = {"1": 1, '{"a":1}': {"a": 1}, "True": True, "none": None, "abc": "abc", "{'a': 1}": "{'a': 1}"}
    assert {text: decode_undeclared(text) for text in texts} == texts


@pytest.mark.req("A-020")
def test_defaults_and_mandatory_parameters() -> None:
    description = parse_description(
        described(
            {"name": "a", "type": "int", "optional": "false"},
            {"name": "b", "type": "int", "defaultValue": "2048", "validator": "(0,1000)"},
            {"name": "c", "type": "float", "defaultValue": 0.5},
            {"name": "d", "type": "int", "defaultValue": ""},
            {"name": "e", "type": "integer", "defaultValue": None},
        )
    )
    # The standard's own example has a default outside its validator: it is passed all the same.
    assert description.resolve_parameters({"a": 1}) == {"a": "1", "b": "2048", "c": "0.5"}
    assert description.decode_parameters({"a": "1"}) == {"a": 1, "b": 2048, "c": 0.5, "d": None, "e": None}
    for values in ({}, {"a": None}):
        with pytest.raises(ParameterError, match="a: mandatory"):
            description.resolve_parameters(values)
    with pytest.raises(ParameterError, match="a: mandatory"):
        description.decode_parameters({})


def test_undeclared_parameters() -> None:
    description = parse_description(described())
    assert description.resolve_parameters({"dataset_id": "a#b", "namespace": "a", "name": "b"}) == {}
    with pytest.raises(ParameterError, match="max_iterr"):
        description.resolve_parameters({"max_iterr": 3})
    assert description.resolve_parameters({"max_iterr": 3}, undeclared="pass") == {"max_iterr": "3"}
    with pytest.raises(ParameterError):
        description.resolve_parameters({"a=b": 3}, undeclared="pass")


@pytest.mark.req("A-044")
@pytest.mark.parametrize("name", ["a.b", "a=b", "a b", "", "x" * 129, "a\n"])
def test_unusable_names(name: str) -> None:
    with pytest.raises(DescriptionError, match="name"):
        parse_description(described({"name": name, "type": "int"}))


def test_repeated_names() -> None:
    with pytest.raises(DescriptionError, match="twice"):
        parse_description(described({"name": "a", "type": "int"}, {"name": "a", "type": "int"}))


@pytest.mark.req("A-001")
def test_own_descriptions_are_strict_and_satisfy_the_schema() -> None:
    schema = json.loads(files("specs").joinpath("schemas/component.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for description in builtin_descriptions():
        text = files("specs").joinpath(f"components/{description.component_name}.json").read_text()
        assert json.loads(text) == description.raw
        jsonschema.validate(json.loads(text), schema)
        assert (description.provider, description.version) == ("interconn", "1.0.0")
        assert set(description.role_list) <= {"guest", "host"}
        assert description.results["0"].message == "ok"
        for parameter in description.input_params.values():
            default = parameter.default_text()
            assert default is not None
            assert parameter.encode(default) == default
    assert [d.component_name for d in builtin_descriptions()] == list(BUILTIN)
    with pytest.raises(KeyError):
        builtin_description("../../etc/passwd")


def test_schema_refuses_what_the_strict_reader_refuses() -> None:
    schema = json.loads(files("specs").joinpath("schemas/component.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    wrong: list[dict[str, object]] = [
        {key: value for key, value in MINIMAL.items() if key != gone} for gone in ("title", "roleList")
    ]
    wrong += [
        json.loads(described({"name": "a.b", "type": "int"})),
        json.loads(described({"name": "a", "type": "int", "optional": "yes"})),
        json.loads(described({"name": "a", "type": "int", "validator": "nonsense"})),
        json.loads(described({"name": "a", "type": "int", "bindingData": "getKV()"})),
        json.loads(described(inputData=[{"name": "x", "category": "report"}])),
    ]
    for raw in wrong:
        assert not validator.is_valid(raw)
        with pytest.raises(DescriptionError):
            parse_description(json.dumps(raw), strict=True)
    assert validator.is_valid(MINIMAL)
