from collections.abc import AsyncIterator

import aiohttp
import pytest

from gateway.data_plane.io.process import open_files


@pytest.fixture(autouse=True, scope="session")
def _open_files() -> None:
    """Here data processes live in the tests' own process, both ends of every connection with them."""
    open_files()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session
