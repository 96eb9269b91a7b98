"""`python undying.py node.toml`: a gateway whose supervisor restarts its processes however often they are killed."""

import sys
from pathlib import Path

from gateway.app.serve import serve
from gateway.runtime import supervisor

supervisor.DEATHS = 1 << 30  # type: ignore[misc]

if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1])))
