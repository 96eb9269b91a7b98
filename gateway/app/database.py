"""Where the database of a node is."""

from gateway.auth.keys import read_secret
from gateway.config import Config


def store_url(config: Config) -> str:
    """The database's address, password included where it has one; raises CallerError where its file cannot be used."""
    if (file := config.store_file()) is not None:
        return read_secret(file).decode("utf-8", "replace").strip()
    return config.store.url or f"sqlite:///{config.path(config.paths.state)}"
