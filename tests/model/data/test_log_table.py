"""Batches of a log with types."""

from collections import Counter
from pathlib import Path

import polars as pl

from model.data.files.row_ledger import RowLedger
from model.data.log_table import read_log_table, unread_advice


def test_reads_ratings_and_times_and_counts_what_is_none() -> None:
    ledger = RowLedger(Path("log.csv"), rows=5)
    batch = pl.DataFrame(
        {
            "user_id": ["u", "v", None, "w", "x"],
            "item_id": ["a", "b", "c", "", "d"],
            "rating": ["5", "NaN", "1", "1", "good"],
            "timestamp": ["1366384515000", "2013-04-19", None, None, "later"],
        }
    )
    unread: Counter[str] = Counter()
    [read] = read_log_table([(ledger, batch)], unread)
    assert read.rows() == [
        ("u", "a", 5.0, 1366384515.0),
        ("v", "b", None, 1366329600.0),
        ("x", "d", None, None),
    ]
    assert {reason: found.count for reason, found in ledger.skipped.items()} == {
        "the row has no user_id": 1,
        "the row has no item_id": 1,
    }
    assert ledger.summary() == "log.csv: 2 of 5 rows were set aside, the first: the row has no user_id"
    assert dict(unread) == {"rating, such as 'good'": 1, "timestamp, such as 'later'": 1}


def test_ratings_with_a_decimal_comma_are_read() -> None:
    batch = pl.DataFrame({"user_id": ["u"] * 2, "item_id": ["a", "b"], "rating": ["4,5", "3"]})
    batch = batch.with_columns(timestamp=pl.lit(None, pl.String))
    [read] = read_log_table([(RowLedger(Path("log.csv"), rows=2), batch)], Counter())
    assert read["rating"].to_list() == [4.5, 3.0]


def test_unread_times_are_told_with_the_remedy() -> None:
    unread = Counter[str]()
    rows = pl.DataFrame(
        {
            "user_id": ["u", "u"],
            "item_id": ["a", "b"],
            "rating": ["ok", None],
            "timestamp": ["09/10/2017", "13/10/2017"],
        }
    )
    list(read_log_table([(RowLedger(Path("log.csv")), rows)], unread))
    assert unread_advice(unread) == [
        "1 value of rating, such as 'ok', could not be read. Write ratings as numbers.",
        "2 values of timestamp, such as '09/10/2017', could not be read. Write times as 2026-11-27 14:30 or in seconds "
        "since 1970.",
    ]


def test_rows_without_a_user_are_not_those_of_one_user() -> None:
    users = ["u1", "NULL", "nan", "\\N", "None", " ", "0", "anonymous"]
    batch = pl.DataFrame({"user_id": users, "item_id": ["null"] * 8}).with_columns(
        rating=pl.lit(None, pl.String), timestamp=pl.lit(None, pl.String)
    )
    ledger = RowLedger(Path("log.csv"), rows=8)
    [read] = read_log_table([(ledger, batch)], Counter())
    assert read["user_id"].to_list() == ["u1", "0", "anonymous"]
    assert "5 of 8 rows were set aside, the first: the row has no user_id (NULL)" in ledger.summary()


def test_the_unit_of_times_does_not_depend_on_a_missing_one() -> None:
    batch = pl.DataFrame({"user_id": ["u"] * 3, "item_id": ["a"] * 3, "timestamp": ["20130419", "N/A", None]})
    batch = batch.with_columns(rating=pl.lit(None, pl.String))
    [read] = read_log_table([(RowLedger(Path("log.csv"), rows=3), batch)], Counter())
    assert read["timestamp"].to_list() == [1366329600.0, None, None]
