"""A node with its admin listener, and a user of every role."""

from collections.abc import AsyncIterator

import pytest

from specs.admin import Role
from tests.admin.world import Listener, listening
from tests.mgmt.world import Node, World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def node(world: World) -> Node:
    return world.node("A")


@pytest.fixture
async def listener(node: Node) -> AsyncIterator[Listener]:
    async with listening(node) as made:
        for name, role in (("ada", Role.ADMIN), ("otto", Role.OPERATOR), ("eve", Role.AUDITOR)):
            await made.make(name, role)
        yield made
