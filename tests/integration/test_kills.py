"""kill -9 at random moments, over a link that loses, repeats and delays: both sides agree in the end.

The long run is `make soak`.
"""

from pathlib import Path

from tests.integration.havoc import Havoc

SEED = 20261122
KILLS = 30


def test_thirty_kills(tmp_path: Path) -> None:
    havoc = Havoc(tmp_path / "lab", SEED, KILLS)
    havoc.run()
    assert havoc.problems == [], f"seed {SEED}: {dict(havoc.done)}"
    assert sum(count for name, count in havoc.done.items() if name.startswith("kill ")) == KILLS
    # Something did happen meanwhile.
    assert havoc.done["audits agreed"] > 5
    assert havoc.done["link cut"] + havoc.done["link lose"] + havoc.done["link late"] > 5
