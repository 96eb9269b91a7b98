import contextlib
from collections.abc import Iterator

import pytest

from tests import postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A PostgreSQL server of this test process; skips with the reason where there is none."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(postgres.serve())
        except postgres.NoServerError as e:
            pytest.skip(f"no PostgreSQL server: {e}")
        yield server
