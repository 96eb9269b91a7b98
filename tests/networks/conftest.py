"""Fixtures of the edge's tests."""

from tests.edges.conftest import client

__all__ = ["client"]
