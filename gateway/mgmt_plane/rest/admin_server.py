"""Placeholder of the admin server's types."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """A file instead of JSON."""

    path: Path
    filename: str


AdminHandler = Callable[[Mapping[str, str], Mapping[str, str], Mapping[str, Any]], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class AdminRoute:
    """One route of the admin API."""

    method: str
    path_template: str
    handler: AdminHandler
