"""Nodes A, B and C; A and B are partners where `partners` is asked for."""

import pytest

from tests.mgmt.world import Node, World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def a(world: World) -> Node:
    return world.node("A")


@pytest.fixture
def b(world: World) -> Node:
    return world.node("B")


@pytest.fixture
def c(world: World) -> Node:
    return world.node("C")


@pytest.fixture
async def contract_id(world: World, a: Node, b: Node) -> str:
    """A applied to B and B approved."""
    return (await world.partners(a, b)).contract_id
