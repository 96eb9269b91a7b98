"""kill -9 at random moments, over a link that loses, repeats and delays: both sides agree in the end.

The long run is `make soak`.
"""

import sys
from pathlib import Path

from tests.integration.havoc import Havoc

SEED = 20261122
KILLS = 30


def test_thirty_kills(tmp_path: Path) -> None:
    havoc = Havoc(tmp_path / "lab", SEED, KILLS)
    havoc.run()
    sys.stdout.write(havoc.summary())
    assert havoc.problems == [], f"seed {SEED}"
    done = havoc.done
    assert sum(count for name, count in done.items() if name.startswith("kill ")) == KILLS
    # They did hit something: approvals came about meanwhile, over a link that lost messages.
    assert done["audits agreed"] > 20
    assert done["approvals both know"] > 3
    assert done["permits both hold"] > 0
    assert done["link cut"] + done["link lose"] + done["link late"] > 10
