"""The two halves of the demo's table."""

import csv

from gateway.demo import data


def test_each_side_holds_900_rows_and_800_customers_are_common():
    halves = data.split(data.read_source())
    bank, payment = [{row["id"] for row in side} for side in (halves.bank, halves.payment)]
    assert len(halves.bank) == len(halves.payment) == len(bank) == len(payment) == 900
    assert len(bank & payment) == 800


def test_the_orders_differ_and_ids_tell_nothing_of_the_source_order():
    source = data.read_source()
    halves = data.split(source)
    common = {row["id"] for row in halves.bank} & {row["id"] for row in halves.payment}
    bank_order = [row["id"] for row in halves.bank if row["id"] in common]
    payment_order = [row["id"] for row in halves.payment if row["id"] in common]
    assert bank_order != payment_order
    assert bank_order != sorted(bank_order)


def test_the_columns_of_the_two_sides_are_disjoint_and_complete():
    halves = data.split(data.read_source())
    bank, payment = set(halves.bank[0]), set(halves.payment[0])
    assert bank & payment == {"id"}
    assert bank | payment == {"id", *data.read_source()[0]}
    assert len(bank) == 1 + 8 + 1
    assert len(payment) == 1 + 12
    assert {"status_of_existing_checking_account", "savings_account_and_bonds"} <= payment
    assert "creditability" in bank


def test_rows_of_one_customer_come_from_one_row_of_the_source():
    source = data.read_source()
    halves = data.split(source)
    payment = {row["id"]: row for row in halves.payment}
    joined = [{**row, **payment[row["id"]]} for row in halves.bank if row["id"] in payment]
    known = {tuple(sorted(row.items())) for row in source}
    assert all(tuple(sorted((k, v) for k, v in row.items() if k != "id")) in known for row in joined)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    rows = data.read_source()
    for name in ("one", "two"):
        data.write_csv(tmp_path / name, data.split(rows).bank)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert data.split(rows, seed=1) != data.split(rows)
    with (tmp_path / "one").open(newline="") as file:
        assert list(csv.DictReader(file)) == list(data.split(rows).bank)
