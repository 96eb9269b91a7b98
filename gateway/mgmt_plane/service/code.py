"""The digest of the code that a component's image stands for: what was approved is what runs.

A `builtin:` image is the source of its module, a `file://` image the file itself; any other image is a name that only a
container engine can resolve, so its digest is that of the name (name it by digest to bind it to its content). Libraries
that a component imports are not covered.
"""

import hashlib
from pathlib import Path
from typing import Final

from gateway.errors import Kind, Refused

BUILTIN: Final = "builtin:"
"""Prefix of an image that is a Python module of ours."""
EXECUTABLE: Final = "file://"
"""Prefix of an image that is a program of this machine."""


_OURS: Final = "gateway.components."


def code_digest(image: str) -> str:
    """SHA-256 hex of what an image stands for now; reads a file. Raises Refused(NOT_FOUND) where it cannot be read."""
    file = _file(image)
    if file is None:
        return hashlib.sha256(image.encode()).hexdigest()
    try:
        if not file.is_file():  # a device would never end
            raise FileNotFoundError
        with file.open("rb") as read:
            return hashlib.file_digest(read, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise Refused(f"the program of image {image[:200]} cannot be read here", kind=Kind.NOT_FOUND) from error


def _file(image: str) -> Path | None:
    if image.startswith(EXECUTABLE):
        return Path(image.removeprefix(EXECUTABLE))
    module = image.removeprefix(BUILTIN)
    if image.startswith(BUILTIN) and module.startswith(_OURS):
        # By its place, not by the import system, which would run code of the packages above it.
        return Path(__file__).resolve().parents[2] / "components" / f"{module.removeprefix(_OURS)}.py"
    return None
