"""[store] of node.toml: where the database is, and that no password stands there."""

from pathlib import Path

import pytest

from gateway.app.database import store_url
from gateway.config import Config, ConfigError, load
from gateway.errors import CallerError

NODE = """
[node]
node_id = "n"
inst_id = "i"
name = "n"
institution = "i"
address = "https://127.0.0.1:7304"
"""


def config(folder: Path, url: str | None) -> Config:
    file = folder / "node.toml"
    file.write_text(NODE if url is None else f'{NODE}\n[store]\nurl = "{url}"\n')
    return load(file)


def test_default_is_sqlite_in_the_state_file(tmp_path: Path) -> None:
    assert store_url(config(tmp_path, None)) == f"sqlite:///{tmp_path / 'state.db'}"


def test_an_address_without_a_secret_stands_in_the_file(tmp_path: Path) -> None:
    url = "postgresql://gateway@db.example:5432/interconn?sslmode=verify-full"
    assert store_url(config(tmp_path, url)) == url


def test_an_address_with_a_secret_stands_in_a_file_of_its_own(tmp_path: Path) -> None:
    found = config(tmp_path, "file:secret/store.url")
    with pytest.raises(CallerError):
        store_url(found)
    secret = tmp_path / "secret" / "store.url"
    secret.parent.mkdir()
    secret.write_text("postgresql://u:hidden@h/d\n")
    secret.chmod(0o644)
    with pytest.raises(CallerError, match="owner alone"):
        store_url(found)
    secret.chmod(0o600)
    assert store_url(found) == "postgresql://u:hidden@h/d"
    assert "hidden" not in repr(found)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hidden@h/d",
        "postgresql://u@h/d?password=hidden",
        "mysql://u@h/d",
        "file://host/path",
        "file:",
        "postgresql://[h/hidden",
        "hidden",
    ],
)
def test_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match=r"store\.url") as caught:
        config(tmp_path, url)
    assert "hidden" not in str(caught.value)
