"""The table of breaks still applies to the product; whether tests notice them is `make mutants`."""

import pytest

from tests import mutations, requirements


@pytest.mark.parametrize("mutant", mutations.mutants(), ids=lambda mutant: mutant.name)
def test_each_break_still_applies(mutant: mutations.Mutant) -> None:
    """Where the product has changed, the row must follow it."""
    assert mutations.mutated(mutations.ROOT, mutant)


def test_every_requirement_of_part_1_is_broken_once() -> None:
    wanted = {each.id for each in requirements.read_parts(requirements.ROOT)[0].requirements}
    assert wanted <= set(mutations.MUTANTS)


def test_every_break_has_its_judges() -> None:
    claims = requirements.read_claims(requirements.ROOT)
    assert [name for name in mutations.MUTANTS if not mutations.judges(claims, name)] == []


def test_a_break_that_does_not_apply_is_found() -> None:
    for old in ("there is no such text", "import"):
        edit = mutations.Edit("gateway/errors.py", old, "")
        with pytest.raises(mutations.NotApplicable):
            mutations.mutated(mutations.ROOT, mutations.Mutant("X", "X", (edit,)))
