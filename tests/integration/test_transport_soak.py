"""The short forms of `tests.integration.transport_soak` that have none elsewhere; `make soak` has the long ones."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration import transport_soak as soak
from tests.integration.processes import Gateway


async def test_what_leaves_the_gateways_standing() -> None:
    async with soak.fresh(limits=soak.TIGHT) as both:

        @contextlib.asynccontextmanager
        async def same(**_settings: Any) -> AsyncIterator[tuple[Gateway, Gateway]]:
            yield both

        for name in ("bombs", "garbage", "bodies", "sessions", "tiny", "bulk"):
            assert await soak.run(name, quick=True, seed=7, two=same), name


@pytest.mark.parametrize("name", ["links", "killed"])
async def test_what_does_not(name: str) -> None:
    assert await soak.run(name, quick=True, seed=7)
