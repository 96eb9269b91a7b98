"""docs/cli.md is what the grammar says, and every route of the admin API has a command."""

from gateway import cli
from specs.admin import OUTSIDE, ROUTES
from tests.cli_page import PAGE, commands, page


def test_the_page_is_current() -> None:
    assert PAGE.read_text("utf-8") == page(), "run: make docs"


def test_every_route_has_a_command() -> None:
    known = {words for words, _, _ in commands(cli.parser())}
    for name, route in ROUTES.items():
        assert (route.command in known) != (name in OUTSIDE), (name, route.command)
