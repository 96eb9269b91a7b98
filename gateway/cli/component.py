"""`interconn component`: self-descriptions of components, before they are registered."""

from pathlib import Path

from gateway.cli.call import Call, Exit, UsageError
from gateway.cli.parser import Group
from gateway.errors import ProtocolViolation
from specs.delivered import read_delivered
from specs.description import MAX_TEXT_CHARS, Description, DescriptionError, read_lenient_json


def add(group: Group) -> None:
    check = group.command("check", checking, "read a self-description or a vendor's file of several", node=False)
    check.add_argument("file", type=Path, help="JSON file")


def checking(call: Call) -> Exit:
    try:
        with call.file.open(encoding="utf-8") as file:
            text = file.read(MAX_TEXT_CHARS + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{call.file} cannot be read") from error
    try:
        found = described(text)
    except DescriptionError as error:
        raise ProtocolViolation(f"{call.file}: {error}") from error
    rows = [[each.provider, each.component_name, each.version, ", ".join(each.role_list)] for each in found]
    keys = [dict(zip(("componentName", "provider", "version"), each.key, strict=True)) for each in found]
    call.out.value(keys, lambda: call.out.table(("provider", "component", "version", "roles"), rows, empty="None."))
    return Exit.OK


def described(text: str) -> tuple[Description, ...]:
    """Every description of a file. Raises DescriptionError with key and line of the file."""
    value, lines = read_lenient_json(text)
    if not isinstance(value, dict):
        raise DescriptionError("a component description is a JSON object", line=1)
    return tuple(description for _, description in read_delivered(value, lines))
