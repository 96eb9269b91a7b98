from collections.abc import Iterator

import pytest

from tests.components.platform import Platform, running_platform


@pytest.fixture
def platform() -> Iterator[Platform]:
    with running_platform() as started:
        yield started
