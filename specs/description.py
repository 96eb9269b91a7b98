"""The self-description file of a component (part 3 section 2; fields also in part 2, b.5-b.7).

`parse_description` reads what vendors really write: trailing commas, `optional` as text, `dependsOn` as empty text,
numbers as defaults. `Description.to_json` writes strict JSON. Unknown keys survive unchanged.
`Description.resolve_parameters` is what a scheduler passes in the environment, `Parameter.decode` what a component
makes of it again, so both sides agree by construction.

Registration, images and who may use a component are the management layer's. Pure text in, values out; the only file
access is `builtin_descriptions`, which reads this package's own data.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeVar

MAX_TEXT_CHARS: Final = 1 << 20
MAX_DEPTH: Final = 32
MAX_ITEMS: Final = 1000
"""Parameters, ports or results of one component."""
MAX_VALUE_CHARS: Final = 64 * 1024
"""One parameter value; Linux allows 128 KiB for one environment string."""

INPUT_CATEGORIES: Final = frozenset({"model", "dataset", "training_set", "test_set", "datasets"})
OUTPUT_CATEGORIES: Final = frozenset({"model", "dataset", "training_set", "test_set", "report", "metric"})
CONF_KEYS: Final = frozenset({"dataset_id", "namespace", "name"})
"""Keys of task_params that name a source node's data, not a parameter (part 2, b.4 and g.2)."""
DYNAMIC_BINDING: Final = "call_function "

_NAME: Final = re.compile(r"[^\s.=\x00-\x1f\x7f]{1,128}")
"""No dot: readers such as FATE-Flow's rebuild nested objects by splitting variable names at dots (A-044)."""
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,40}")
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_INTERVAL: Final = re.compile(r"([(\[])\s*([^,\s]*)\s*,\s*([^,\s]*)\s*([)\]])")


class DescriptionError(ValueError):
    """A description that cannot be used; `key` is the place (`inputParam[2].validator`), `line` counts from 1 and is 0
    where it is not known; `problem` is the message without them.
    """

    def __init__(self, message: str, *, key: str = "", line: int = 0) -> None:
        where = ", ".join(part for part in (key, f"line {line}" if line else "") if part)
        super().__init__(f"{where}: {message}" if where else message)
        self.problem = message
        self.key = key
        self.line = line


class ParameterError(ValueError):
    """A parameter value that the description does not allow; `name` is the parameter."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"parameter {name}: {message}")
        self.name = name


# --- lenient JSON with line numbers -----------------------------------------------------------------------------------


class _Reader:
    """Recursive-descent JSON reader: trailing commas pass (A-003), duplicate keys do not; remembers lines by path."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[str, int] = {}
        self._counted = (0, 1)

    def line(self) -> int:
        """Line of `at`; counted onwards from the last place asked for."""
        at, line = self._counted
        line += self.text.count("\n", at, self.at) if self.at >= at else -self.text.count("\n", self.at, at)
        self._counted = (self.at, line)
        return line

    def fail(self, message: str, path: str) -> NoReturn:
        raise DescriptionError(message, key=path, line=self.line())

    def space(self) -> str:
        """Skip white space; the next character, or "" at the end."""
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.text[self.at : self.at + 1]

    def value(self, path: str, depth: int) -> Any:
        start = self.space()
        self.lines[path] = self.line()
        if depth > MAX_DEPTH:
            self.fail("nested too deeply", path)
        if start == "{":
            return self.members(path, depth)
        if start == "[":
            return self.elements(path, depth)
        if start == '"':
            return self.string(path)
        for word, constant in (("true", True), ("false", False), ("null", None)):
            if self.text.startswith(word, self.at):
                self.at += len(word)
                return constant
        match = _NUMBER.match(self.text, self.at)
        if match is None or len(match.group()) > 400:
            self.fail("a JSON value is expected", path)
        self.at = match.end()
        number: int | float = json.loads(match.group())
        if isinstance(number, float) and not math.isfinite(number):
            self.fail("number out of range", path)
        return number

    def string(self, path: str) -> str:
        try:
            text, self.at = json.decoder.scanstring(self.text, self.at + 1, True)  # type: ignore[attr-defined]
        except json.JSONDecodeError as e:
            self.at = e.pos
            self.fail(e.msg, path)
        return str(text)

    def comma_or(self, closing: str, path: str) -> bool:
        """After an element: True when the list goes on."""
        mark = self.space()
        if mark == ",":
            self.at += 1
            mark = self.space()
            if mark != closing:
                return True
        if mark != closing:
            self.fail(f"',' or '{closing}' is expected", path)
        self.at += 1
        return False

    def members(self, path: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self.at += 1
        if self.space() == "}":
            self.at += 1
            return found
        while True:
            if self.space() != '"':
                self.fail("a key in quotes is expected", path)
            key = self.string(path)
            if key in found:
                self.fail(f"key {key!r} appears twice", path)
            if self.space() != ":":
                self.fail(f"':' is expected after key {key!r}", path)
            self.at += 1
            found[key] = self.value(f"{path}.{key}" if path else key, depth + 1)
            if not self.comma_or("}", path):
                return found

    def elements(self, path: str, depth: int) -> list[Any]:
        found: list[Any] = []
        self.at += 1
        if self.space() == "]":
            self.at += 1
            return found
        while True:
            found.append(self.value(f"{path}[{len(found)}]", depth + 1))
            if not self.comma_or("]", path):
                return found


def read_lenient_json(text: str) -> tuple[Any, Mapping[str, int]]:
    """Value of a JSON text that may have trailing commas, and the line of each path (`inputParam[2].name`; root: "").

    Raises DescriptionError with the line; a text over MAX_TEXT_CHARS or nested deeper than MAX_DEPTH is refused.
    """
    if len(text) > MAX_TEXT_CHARS:
        raise DescriptionError(f"longer than {MAX_TEXT_CHARS} characters")
    reader = _Reader(text.removeprefix("\ufeff"))
    value = reader.value("", 0)
    if reader.space():
        reader.fail("text after the end", "")
    return value, MappingProxyType(reader.lines)


# --- values -----------------------------------------------------------------------------------------------------------


def parse_bool(text: str) -> bool:
    """`true` or `false` in any letter case and nothing else: `1`, `yes`, `None` are not booleans (A-017)."""
    word = text.strip().lower()
    if word not in {"true", "false"}:
        raise ValueError(f"{text[:40]!r} is neither true nor false")
    return word == "true"


def _parse_int(text: str) -> int:
    if not _INTEGER.fullmatch(text.strip()):
        raise ValueError(f"{text[:40]!r} is not an integer")
    return int(text)


def _parse_float(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]!r} is not a finite number")
    return number


def _parse_nullable_int(text: str) -> int | None:
    return None if text.strip().lower() in {"", "none", "null"} else _parse_int(text)


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ValueError(f"{text[:40]!r} is not JSON") from None


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


_DECODERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "string": str,
    "int": _parse_int,
    "integer": _parse_nullable_int,
    "float": _parse_float,
    "number": _parse_float,
    "boolean": parse_bool,
    "object": _parse_json,
}


def decode_undeclared(text: str) -> Any:
    """Value of a variable that no description declares: JSON, else true/false/none in any case, else text (5.4)."""
    try:
        return _parse_json(text)
    except ValueError:
        word = text.strip().lower()
        if word in {"true", "false"}:
            return word == "true"
        return None if word == "none" else text


def encode_value(value: object) -> str:
    """Environment text of a JSON value: decimal numbers, true/false, strict JSON for lists and objects (A-016).

    Raises ValueError for None, NaN and infinities, which have no text, and for what JSON does not know.
    """
    match value:
        case bool():
            text = "true" if value else "false"
        case str():
            text = value
        case int():
            text = str(value)
        case float() if math.isfinite(value):
            text = repr(value)
        case Mapping() | list() | tuple():
            try:
                text = json.dumps(
                    dict(value) if isinstance(value, Mapping) else list(value), ensure_ascii=False, allow_nan=False
                )
            except (TypeError, RecursionError):
                raise ValueError("holds something that JSON does not know") from None
        case _:
            raise ValueError(f"a value of type {type(value).__name__} has no text")
    if len(text) > MAX_VALUE_CHARS:
        raise ValueError(f"longer than {MAX_VALUE_CHARS} characters")
    if "\x00" in text:
        raise ValueError("holds a NUL character")
    return text


# --- validators -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pattern:
    """`regular:'...'` (or `regular-...`): the whole text of the value must match."""

    regex: re.Pattern[str]

    def check(self, text: str) -> None:
        # A vendor's expression may backtrack; a short text bounds how badly.
        if len(text) > 4096 or not self.regex.fullmatch(text):
            raise ValueError(f"{text[:40]!r} does not match {self.regex.pattern!r}")


@dataclass(frozen=True, slots=True)
class Interval:
    """`(low,high)`, both bounds excluded; with square brackets the bound belongs to it. An empty bound is infinite."""

    low: float
    high: float
    low_included: bool
    high_included: bool

    def check(self, text: str) -> None:
        number = _parse_float(text)
        above = number >= self.low if self.low_included else number > self.low
        below = number <= self.high if self.high_included else number < self.high
        if not (above and below):
            raise ValueError(f"{text[:40]!r} is outside {self}")

    def __str__(self) -> str:
        left, right = "[" if self.low_included else "(", "]" if self.high_included else ")"
        return f"{left}{self.low:g},{self.high:g}{right}"


def parse_validator(text: str) -> Pattern | Interval | None:
    """Validator of part 3 section 2.2; None for an empty text. Raises ValueError for any other form (A-006)."""
    text = text.strip()
    if not text:
        return None
    for prefix in ("regular:", "regular-"):
        if text.startswith(prefix):
            expression = text.removeprefix(prefix).strip()
            if len(expression) >= 2 and expression[0] == expression[-1] and expression[0] in "'\"":
                expression = expression[1:-1]
            try:
                return Pattern(re.compile(expression))
            except (re.error, RecursionError, OverflowError):
                raise ValueError(f"{expression[:80]!r} is not a regular expression") from None
    match = _INTERVAL.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:80]!r} is neither regular:'...' nor (low,high)")
    opening, low, high, closing = match.groups()
    try:
        bounds = (float(low or "-inf"), float(high or "inf"))
    except ValueError:
        raise ValueError(f"{text[:80]!r} has a bound that is not a number") from None
    if not bounds[0] <= bounds[1]:
        raise ValueError(f"{text[:80]!r} has its bounds in the wrong order")
    return Interval(*bounds, low_included=opening == "[", high_included=closing == "]")


# --- the description --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Choice:
    """One entry of a static bindingData list."""

    label: str
    value: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """One inputParam item (2.2).

    default: as written, None when there is none. choices: the static list, None when values are free (A-007);
    dynamic_binding: the text `call_function ...`, kept and not interpreted. depends_on: conditions such as
    `optimizer.sgd`, a hint for forms. extra: keys of the item that this reader does not know.
    """

    name: str
    title: str
    description: str
    type: str
    optional: bool
    default: object | None
    validator_text: str
    validator: Pattern | Interval | None
    choices: tuple[Choice, ...] | None
    dynamic_binding: str
    depends_on: tuple[str, ...]
    ui_pattern: str
    group_tag: tuple[str, ...]
    ui_type: str
    extra: Mapping[str, Any]

    def default_text(self) -> str | None:
        """The default as environment text, None when there is none; "" is a default only of a string.

        Not checked against the validator: the standard's own example has a default outside its bounds (2.5).
        """
        if self.default is None or (self.default == "" and self.type != "string"):
            return None
        return encode_value(self.default)

    def encode(self, value: object) -> str:
        """Environment text of a value given by a caller. Raises ParameterError if type, list or validator refuse it."""
        try:
            text = encode_value(value)
            self._decode(text)
            self._choose(text)
            if self.validator is not None:
                self.validator.check(text)
        except ValueError as e:
            raise ParameterError(self.name, str(e)) from None
        return text

    def decode(self, text: str) -> Any:
        """Python value of an environment text by the declared type. Raises ParameterError.

        string -> str, as is; int -> int; integer -> int or None; float, number -> float; boolean -> bool;
        object -> any JSON value; an unknown type -> `decode_undeclared`.
        """
        try:
            return self._decode(text)
        except ValueError as e:
            raise ParameterError(self.name, str(e)) from None

    def _choose(self, text: str) -> None:
        if self.choices is not None and text not in {choice.value for choice in self.choices}:
            raise ValueError(f"{text[:40]!r} is not one of {', '.join(choice.value for choice in self.choices)}")

    def _decode(self, text: str) -> Any:
        return _DECODERS.get(self.type, decode_undeclared)(text)


@dataclass(frozen=True, slots=True)
class Port:
    """One inputData or outputData item (2.3); data_format[0] is the default (A-010), () when none is named."""

    name: str
    description: str
    category: str
    data_format: tuple[str, ...]
    extra: Mapping[str, Any]

    @property
    def default_format(self) -> str | None:
        return self.data_format[0] if self.data_format else None


@dataclass(frozen=True, slots=True)
class ResultCode:
    """One result item (2.4)."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Description:
    """A component, as its vendor describes it. The mappings keep the order of the file."""

    component_name: str
    provider: str
    version: str
    title: str
    description: str
    role_list: tuple[str, ...]
    des_version: str
    storage_engine: tuple[str, ...]
    input_params: Mapping[str, Parameter]
    input_data: Mapping[str, Port]
    output_data: Mapping[str, Port]
    results: Mapping[str, ResultCode]
    extra: Mapping[str, Any]
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def key(self) -> tuple[str, str, str]:
        """(componentName, provider, version): what a DAG node names and a registry is keyed by."""
        return (self.component_name, self.provider, self.version)

    def to_json(self) -> str:
        """The file again as strict JSON, unknown keys and foreign values included (A-001, A-003, A-005)."""
        return json.dumps(dict(self.raw), ensure_ascii=False, indent=2, allow_nan=False) + "\n"

    def resolve_parameters(self, values: Mapping[str, object], *, undeclared: str = "refuse") -> dict[str, str]:
        """Environment text of every parameter a task gets: the given values, else the defaults (A-016, A-020).

        values: merged task_params of one party; None counts as not given; the keys of CONF_KEYS are skipped unless
        declared. undeclared: `refuse`, or `pass` to hand unknown names on as they are.
        Raises ParameterError: mandatory without value or default (A-019), wrong type, outside validator or list.
        """
        texts: dict[str, str] = {}
        for name, value in values.items():
            if name in self.input_params or value is None or name in CONF_KEYS:
                continue
            if undeclared != "pass":
                raise ParameterError(name[:128], f"not a parameter of component {self.component_name}")
            if not _NAME.fullmatch(name):
                raise ParameterError(name[:128], "not a usable name")
            try:
                texts[name] = encode_value(value)
            except ValueError as e:
                raise ParameterError(name, str(e)) from None
        for name, parameter in self.input_params.items():
            value = values.get(name)
            text = parameter.default_text() if value is None else parameter.encode(value)
            if text is not None:
                texts[name] = text
            elif not parameter.optional:
                raise ParameterError(name, f"mandatory for component {self.component_name} and not given")
        return texts

    def decode_parameters(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """What a component makes of its variables: typed values; parameters without text get their default or None."""
        values = {name: decode_undeclared(text) for name, text in texts.items() if name not in self.input_params}
        for name, parameter in self.input_params.items():
            text = texts.get(name, parameter.default_text())
            if text is None and not parameter.optional:
                raise ParameterError(name, f"mandatory for component {self.component_name} and not given")
            values[name] = None if text is None else parameter.decode(text)
        return values


# --- the reader of the description ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cursor:
    """One JSON object of the file and where it stands, so that every complaint names key and line."""

    item: Mapping[str, Any]
    path: str
    lines: Mapping[str, int]

    def fail(self, key: str, message: str) -> NoReturn:
        path = f"{self.path}.{key}" if self.path and key else self.path or key
        raise DescriptionError(message, key=path, line=self.lines.get(path) or self.lines.get(self.path, 0))

    def text(self, key: str, default: str | None = None) -> str:
        value = self.item.get(key)
        if value is None:
            if default is None:
                self.fail(key, "missing")
            return default
        if not isinstance(value, str):
            self.fail(key, "must be a text")
        if len(value) > MAX_VALUE_CHARS or (default is None and not value.strip()):
            self.fail(key, "must not be empty" if not value.strip() else "too long")
        return value

    def name(self, key: str) -> str:
        value = self.text(key)
        if not _NAME.fullmatch(value):
            self.fail(key, f"{value[:40]!r} is not usable as a name (no dot, '=', space or control character)")
        return value

    def texts(self, key: str, *, required: bool) -> tuple[str, ...]:
        """A list of texts; a lone text counts as a list of one, an empty one as none (A-008, b.6)."""
        value = self.item.get(key)
        if isinstance(value, str) and not required:
            return (value,) if value.strip() else ()
        if value is None and not required:
            return ()
        if value is None:
            self.fail(key, "missing")
        if not isinstance(value, list) or len(value) > MAX_ITEMS or not all(isinstance(text, str) for text in value):
            self.fail(key, "must be a list of texts")
        if required and (not value or not all(text.strip() for text in value)):
            self.fail(key, "must name at least one, none of them empty")
        return tuple(value)

    def items(self, key: str, *, required: bool) -> Iterator["_Cursor"]:
        value = self.item.get(key)
        if value is None and required:
            self.fail(key, "missing")
        value = [] if value is None else value
        if not isinstance(value, list) or len(value) > MAX_ITEMS:
            self.fail(key, f"must be a list of at most {MAX_ITEMS} objects")
        prefix = f"{self.path}.{key}" if self.path else key
        for index, item in enumerate(value):
            cursor = _Cursor(item if isinstance(item, dict) else {}, f"{prefix}[{index}]", self.lines)
            if not isinstance(item, dict):
                cursor.fail("", "must be an object")
            yield cursor

    def unknown(self, known: frozenset[str]) -> Mapping[str, Any]:
        return MappingProxyType({key: value for key, value in self.item.items() if key not in known})


_TOP_KEYS: Final = frozenset(
    {
        "componentName",
        "title",
        "provider",
        "version",
        "description",
        "roleList",
        "desVersion",
        "storageEngine",
        "inputParam",
        "inputData",
        "outputData",
        "result",
    }
)
_PARAM_KEYS: Final = frozenset(
    {
        "name",
        "title",
        "description",
        "type",
        "bindingData",
        "optional",
        "defaultValue",
        "validator",
        "dependsOn",
        "UIPattern",
        "groupTag",
        "UIType",
    }
)
_PORT_KEYS: Final = frozenset({"name", "description", "category", "dataFormat"})


def parse_description(text: str, *, strict: bool = False) -> Description:
    """Read a self-description file.

    Always required: componentName, provider, version, roleList, storageEngine (A-002) and the names inside lists.
    strict: additionally every key the standard lists without "optional" must be there, categories must be those of
    section 2.3 (A-009). Unknown keys, types and UI types are kept in both modes (A-005).
    Raises DescriptionError (a ValueError) with key and line.
    """
    value, lines = read_lenient_json(text)
    if not isinstance(value, dict):
        raise DescriptionError("a component description is a JSON object", line=1)
    return read_description(value, lines, strict=strict)


def read_description(
    value: Mapping[str, Any], lines: Mapping[str, int], *, at: str = "", strict: bool = False
) -> Description:
    """As `parse_description`, of an object that stands at path `at` of a text with these lines."""
    top = _Cursor(value, at, lines)
    names = {key: top.text(key) for key in ("componentName", "provider", "version")}
    for key, name in names.items():
        if len(name) > 128 or not name.isprintable():
            top.fail(key, "must be at most 128 printable characters")
    relaxed = None if strict else ""
    results = [
        ResultCode(item.text("resultCode"), item.text("resultMessage", ""))
        for item in top.items("result", required=strict)
    ]
    return Description(
        component_name=names["componentName"],
        provider=names["provider"],
        version=names["version"],
        title=top.text("title", relaxed),
        description=top.text("description", relaxed),
        role_list=top.texts("roleList", required=True),
        des_version=top.text("desVersion", ""),
        storage_engine=top.texts("storageEngine", required=True),
        input_params=_unique(top.items("inputParam", required=strict), lambda item: _parameter(item, relaxed)),
        input_data=_unique(
            top.items("inputData", required=strict), lambda item: _port(item, INPUT_CATEGORIES if strict else None)
        ),
        output_data=_unique(
            top.items("outputData", required=strict), lambda item: _port(item, OUTPUT_CATEGORIES if strict else None)
        ),
        results=MappingProxyType({result.code: result for result in results}),
        extra=top.unknown(_TOP_KEYS),
        raw=MappingProxyType(value),
    )


T = TypeVar("T", Parameter, Port)


def _unique(items: Iterator[_Cursor], parse: Callable[[_Cursor], T]) -> Mapping[str, T]:
    found: dict[str, T] = {}
    for item in items:
        parsed = parse(item)
        if parsed.name in found:
            item.fail("name", f"{parsed.name!r} appears twice")
        found[parsed.name] = parsed
    return MappingProxyType(found)


def _parameter(item: _Cursor, relaxed: str | None) -> Parameter:
    validator_text = item.text("validator", "")
    try:
        validator = parse_validator(validator_text)
    except ValueError as e:
        item.fail("validator", str(e))
    choices, dynamic = _binding(item)
    default = item.item.get("defaultValue")
    try:
        encode_value("" if default is None else default)
    except ValueError as e:
        item.fail("defaultValue", str(e))
    return Parameter(
        name=item.name("name"),
        title=item.text("title", relaxed),
        description=item.text("description", relaxed),
        type=item.text("type"),
        optional=_optional(item),
        default=default,
        validator_text=validator_text,
        validator=validator,
        choices=choices,
        dynamic_binding=dynamic,
        depends_on=item.texts("dependsOn", required=False),
        ui_pattern=item.text("UIPattern", "editeable"),
        group_tag=item.texts("groupTag", required=False),
        ui_type=item.text("UIType", "input"),
        extra=item.unknown(_PARAM_KEYS),
    )


def _optional(item: _Cursor) -> bool:
    """True or false, as JSON or as text; absent means optional (A-004)."""
    value = item.item.get("optional", True)
    if isinstance(value, str):
        try:
            return parse_bool(value)
        except ValueError as e:
            item.fail("optional", str(e))
    if not isinstance(value, bool):
        item.fail("optional", "must be true or false")
    return value


def _binding(item: _Cursor) -> tuple[tuple[Choice, ...] | None, str]:
    value = item.item.get("bindingData")
    if value is None or value in ("", []):
        return None, ""
    if isinstance(value, str):
        if not value.startswith(DYNAMIC_BINDING):
            item.fail("bindingData", f"must be a list of label and value, or a text starting {DYNAMIC_BINDING!r}")
        return None, value
    choices = []
    for entry in item.items("bindingData", required=False):
        try:
            choice = encode_value(entry.item.get("value"))
        except ValueError as e:
            entry.fail("value", str(e))
        choices.append(Choice(entry.text("label", choice), choice))
    return tuple(choices), ""


def _port(item: _Cursor, categories: frozenset[str] | None) -> Port:
    category = item.text("category")
    if categories is not None and category not in categories:
        item.fail("category", f"{category[:40]!r} is not one of {', '.join(sorted(categories))}")
    return Port(
        name=item.name("name"),
        description=item.text("description", ""),
        category=category,
        data_format=item.texts("dataFormat", required=False),
        extra=item.unknown(_PORT_KEYS),
    )


# --- our own components -----------------------------------------------------------------------------------------------

BUILTIN: Final = ("psi", "split", "feature_encode", "hetero_lr", "hetero_lr_predict", "evaluation")


def builtin_description(name: str) -> Description:
    """Description of one of this package's own components; KeyError for another name."""
    from importlib.resources import files  # noqa: PLC0415  # costs 20 ms that a foreign component need not pay

    if name not in BUILTIN:
        raise KeyError(name)
    path = files("specs").joinpath("components", f"{name}.json")
    return parse_description(path.read_text(encoding="utf-8"), strict=True)


def builtin_descriptions() -> tuple[Description, ...]:
    """All of them, in the order in which a job usually runs them."""
    return tuple(builtin_description(name) for name in BUILTIN)
