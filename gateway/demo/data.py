"""The demo's data: the German credit table cut into two institutions' halves with synthetic customer numbers.

`bank` holds the label and the 8 attributes of the loan, `payment` the 12 attributes of the person and the account. Each
holds 900 of the 1000 rows in an order of its own, and exactly 800 customers are known to both. Everything follows from
one seed, so two runs make the same bytes. Leaves to others: registering the files, and every computation on them.
"""

import csv
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

SEED: Final = 20210401
COMMON: Final = 800
OWN: Final = 100
ID: Final = "id"
LABEL: Final = "creditability"
POSITIVE: Final = "bad"
"""The event that the model predicts: the loan went bad."""
BANK_COLUMNS: Final = (
    "duration_in_month",
    "credit_history",
    "purpose",
    "credit_amount",
    "installment_rate_in_percentage_of_disposable_income",
    "other_debtors_or_guarantors",
    "other_installment_plans",
    "number_of_existing_credits_at_this_bank",
)
PAYMENT_COLUMNS: Final = (
    "status_of_existing_checking_account",
    "savings_account_and_bonds",
    "present_employment_since",
    "personal_status_and_sex",
    "present_residence_since",
    "property",
    "age_in_years",
    "housing",
    "job",
    "number_of_people_being_liable_to_provide_maintenance_for",
    "telephone",
    "foreign_worker",
)

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Halves:
    """What each institution holds: rows with `id` and its columns, in its own order."""

    bank: tuple[Row, ...]
    payment: tuple[Row, ...]


def read_source() -> list[dict[str, str]]:
    """The 1000 rows of german_credit.csv as they stand in the package."""
    text = resources.files("gateway.demo").joinpath("german_credit.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def split(rows: Sequence[Row], seed: int = SEED) -> Halves:
    """Give every row a customer number and deal the rows out: COMMON to both, OWN to each alone."""
    chance = random.Random(seed)  # noqa: S311  # a reproducible example, nothing secret
    numbers = chance.sample(range(10_000_000, 100_000_000), len(rows))
    customers = [{ID: f"C{number}", **row} for number, row in zip(numbers, rows, strict=True)]
    chance.shuffle(customers)
    common, rest = customers[:COMMON], customers[COMMON : COMMON + 2 * OWN]
    bank, payment = common + rest[:OWN], common + rest[OWN:]
    chance.shuffle(bank)
    chance.shuffle(payment)
    return Halves(
        bank=tuple(_only(row, (ID, *BANK_COLUMNS, LABEL)) for row in bank),
        payment=tuple(_only(row, (ID, *PAYMENT_COLUMNS)) for row in payment),
    )


def _only(row: Row, columns: Iterable[str]) -> Row:
    return {column: row[column] for column in columns}


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """RFC 4180 with a header line, line feeds at the ends of lines."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_tables(folder: Path, halves: Halves) -> tuple[Path, Path]:
    """bank.csv and payment.csv in an existing folder."""
    bank, payment = folder / "bank.csv", folder / "payment.csv"
    write_csv(bank, halves.bank)
    write_csv(payment, halves.payment)
    return bank, payment
