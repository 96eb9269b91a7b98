"""Entry of a child process: `python -m gateway.app control|data node.toml PARENT`. Each loads only what it needs."""

import signal
import sys
from pathlib import Path

from gateway.config import Config, load
from gateway.errors import GatewayError
from gateway.runtime.supervisor import ABANDONED, exit_with_parent


def main(arguments: list[str]) -> int:
    """arguments: `control` or `data`, node.toml, and the supervisor's pid. The exit code."""
    process, file, parent = arguments
    exit_with_parent(int(parent), ABANDONED if process == "control" else signal.SIGTERM)
    try:
        return _run(process, load(Path(file)))
    except GatewayError as error:
        sys.stderr.write(f"interconn {process}: {error}\n")
    except OSError as error:
        sys.stderr.write(f"interconn {process}: {error}\n")
    return 1


def _run(process: str, config: Config) -> int:
    if process == "control":
        from gateway.app.control import run_control  # noqa: PLC0415

        return run_control(config)
    from gateway.app.data import run_data  # noqa: PLC0415

    return run_data(config)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
