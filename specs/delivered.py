"""The forms in which vendors hand over self-descriptions: one object, a provider file around several, image labels.

`read_delivered` also has them read by `specs.description` and says in which line of the delivered text something is
wrong.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from specs.description import MAX_ITEMS, Description, DescriptionError, read_description

_LABEL: Final = re.compile(r"component\.([1-9][0-9]{0,3})\.([A-Za-z]{1,64})(?:\.([1-9][0-9]{0,3})\.([A-Za-z]{1,64}))?")
_LISTS: Final[Mapping[str, str]] = {
    "parameter": "inputParam",
    "input": "inputData",
    "output": "outputData",
    "result": "result",
}
"""Item of a label -> key of a description."""
_KEYS: Final[Mapping[str, str]] = {"name": "componentName", "categories": "category"}
_TEXTS: Final = frozenset({"roleList", "storageEngine", "dataFormat", "dependsOn", "groupTag"})
"""Keys whose label holds a list, its members separated by commas."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """One description, not read yet, and the image it belongs to: "" where only the caller knows it.

    at: where it stands in what was delivered; "" where that is all of it.
    """

    info: Mapping[str, Any]
    image: str = ""
    at: str = ""


def read_delivered(
    info: Mapping[str, Any], lines: Mapping[str, int], *, at: str = ""
) -> tuple[tuple[Delivered, Description], ...]:
    """Every description of a vendor's object, which stands at path `at` of a text with these lines.

    lines: of `read_lenient_json`; empty where the text is not known. Raises DescriptionError with key and line.
    """
    try:
        parts = taken_apart(info)
    except DescriptionError as error:
        key = _joined(at, error.key)
        raise DescriptionError(error.problem, key=key, line=lines.get(key) or lines.get(at, 0)) from error
    return tuple((part, read_description(part.info, lines, at=_joined(at, part.at))) for part in parts)


def _joined(*keys: str) -> str:
    return ".".join(key for key in keys if key)


def taken_apart(info: Mapping[str, Any]) -> tuple[Delivered, ...]:
    """The descriptions that a vendor's object holds, at least one (A-012, A-045).

    A provider file (part 3, 2.5) is known by `components_description`, labels by keys `component.<i>.…`; the other keys
    of an object with labels are those of every description in it, for labels have no provider, version or roles.
    Raises DescriptionError naming the key.
    """
    if "components_description" in info:
        return _provider_file(info)
    labels = {key: value for key, value in info.items() if key.startswith("component.")}
    if labels:
        return _labels(labels, {key: value for key, value in info.items() if key not in labels})
    return (Delivered(info),)


def _provider_file(info: Mapping[str, Any]) -> tuple[Delivered, ...]:
    inner = info["components_description"]
    if not isinstance(inner, Mapping) or not 0 < len(inner) <= MAX_ITEMS:
        raise DescriptionError(f"must hold 1 to {MAX_ITEMS} components", key="components_description")
    metadata = info.get("metadata", {})
    image = metadata.get("image", "") if isinstance(metadata, Mapping) else None
    if not isinstance(image, str):
        raise DescriptionError("must be a text", key="metadata.image")
    # A component says most of it itself; the file around it names what its components have in common.
    common = {mine: info[theirs] for mine, theirs in (("provider", "name"), ("version", "version")) if theirs in info}
    found = []
    for name, item in inner.items():
        if not isinstance(item, Mapping):
            raise DescriptionError("must be an object", key=f"components_description.{name[:128]}")
        found.append(Delivered({**common, "componentName": name, **item}, image, f"components_description.{name}"))
    return tuple(found)


def _labels(labels: Mapping[str, Any], common: Mapping[str, Any]) -> tuple[Delivered, ...]:
    found: dict[int, dict[str, Any]] = {}
    items: dict[tuple[int, str], dict[int, dict[str, Any]]] = {}
    for label, value in labels.items():
        match = _LABEL.fullmatch(label)
        if match is None or not isinstance(value, str):
            raise DescriptionError("is no label of a component with a text as value", key=label[:160])
        number, item, entry, key = int(match[1]), match[2], match[3], match[4]
        component = found.setdefault(number, {})
        if entry is None:
            component[_KEYS.get(item, item)] = _value(item, value)
        elif item in _LISTS:
            entries = items.setdefault((number, _LISTS[item]), {})
            named = key if key == "name" else _KEYS.get(key, key)
            entries.setdefault(int(entry), {})[named] = _value(named, value)
        else:
            raise DescriptionError(f"{item!r} is none of {', '.join(_LISTS)}", key=label[:160])
    for (number, name), entries in items.items():
        found[number][name] = [entries[entry] for entry in sorted(entries)]
    # No label says that a list is empty.
    empty: dict[str, Any] = {key: [] for key in _LISTS.values()}
    return tuple(
        Delivered(
            {"title": found[number].get("componentName", ""), "description": "", **empty, **common, **found[number]}
        )
        for number in sorted(found)
    )


def _value(key: str, text: str) -> Any:
    return [part.strip() for part in text.split(",") if part.strip()] if key in _TEXTS else text
