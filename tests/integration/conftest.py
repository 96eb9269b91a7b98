from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import rig as rigs


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rigs.Rig]:
    """Two gateways that stay up for all tests that only talk to them."""
    made = rigs.start(Path(tmp_path_factory.mktemp("rig")) / "lab")
    try:
        yield made
    finally:
        made.close()
