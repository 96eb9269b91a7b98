"""Breaks of the requirements of part 2, for tests/mutations.py."""

from collections.abc import Mapping, Sequence
from typing import Final

CONTROL: Final[Mapping[str, Sequence[Sequence[str]]]] = {}
