"""Interaction log as a matrix: filters, counts and advice, against a plain implementation."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.relations.interaction_log import LogFilters, UserItems, read_user_items

Row = tuple[str, str, float | None, float | None]

SCHEMA = {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float64, "timestamp": pl.Float64}


def read(rows: Sequence[Row], items: str = "abcdef", batch: int = 3, **filters: Any) -> UserItems:
    frames = [
        pl.DataFrame(rows[start : start + batch], SCHEMA, orient="row")
        for start in range(0, len(rows), batch)
    ]
    return read_user_items(
        frames, list(items), LogFilters(**{"min_user_items": 1, "min_item_users": 1, **filters})
    )


def pairs_of(log: UserItems, items: str = "abcdef") -> set[tuple[str, str]]:
    users, rows = log.taken.nonzero()
    return {(log.users[int(user)], items[row]) for user, row in zip(users, rows, strict=True)}


def expected(rows: Sequence[Row], filters: LogFilters, items: str) -> set[tuple[str, str]]:
    """Return the pairs that the filters keep, computed one by one."""
    rated = [
        r for r in rows if filters.min_rating is None or (r[2] is not None and r[2] >= filters.min_rating)
    ]
    known = [r for r in rated if r[1] in items]
    latest = sorted(known, key=lambda row: -row[3] if row[3] is not None else np.inf)
    kept: dict[tuple[str, str], None] = dict.fromkeys((user, item) for user, item, *_ in latest)
    seen: Counter[str] = Counter()
    pairs = []
    for user, item in kept:
        seen[user] += 1
        if seen[user] <= filters.max_user_items:
            pairs.append((user, item))
    while True:
        of_item = Counter(item for _, item in pairs)
        left = [pair for pair in pairs if of_item[pair[1]] >= filters.min_item_users]
        of_user = Counter(user for user, _ in left)
        left = [pair for pair in left if of_user[pair[0]] >= filters.min_user_items]
        if left == pairs:
            return set(pairs)
        pairs = left


ROWS = st.lists(
    st.tuples(
        st.sampled_from("uvwxyz"),
        st.sampled_from("abcdefgh"),
        st.none() | st.sampled_from([1.0, 3.5, 4.0, 5.0]),
        st.none() | st.sampled_from([0.0, 1.0, 2.0, 1e9]),
    ),
    max_size=40,
)


@given(
    rows=ROWS,
    filters=st.builds(
        LogFilters,
        min_rating=st.none() | st.just(4.0),
        min_user_items=st.integers(1, 3),
        max_user_items=st.integers(1, 4),
        min_item_users=st.integers(1, 3),
    ),
    batch=st.integers(1, 50),
)
def test_filters_keep_what_a_plain_implementation_keeps(
    rows: list[Row], filters: LogFilters, batch: int
) -> None:
    log = read(rows, batch=batch, **vars(filters))
    assert pairs_of(log) == expected(rows, filters, "abcdef")
    assert log.users.to_list() == sorted({user for user, _ in pairs_of(log)})


def test_every_dropped_row_is_counted() -> None:
    rows: list[Row] = [
        ("u", "a", 5, 1), ("u", "a", 5, 2), ("u", "b", None, 3), ("u", "c", 2, 4), ("u", "ghost", 5, 5),
        ("v", "a", 5, 1), ("v", "b", 4, 2), ("v", "c", 4, 3),
    ]  # fmt: skip
    log = read(rows, min_rating=4.0, max_user_items=2)
    assert log.counts == {
        "interactions": 8, "not_rated": 1, "low_rated": 1, "of_unknown_items": 1, "without_repeats": 4,
        "of_latest_items": 3, "kept_interactions": 3, "kept_users": 2, "kept_items": 3,
    }  # fmt: skip
    assert pairs_of(log) == {("u", "a"), ("v", "b"), ("v", "c")}
    assert log.advice == ("1 interaction names no item, such as 'ghost'.",)


def repaired(given_ids: Sequence[str], items: Sequence[str], repair: bool = True) -> UserItems:
    rows: list[Row] = [("u", item, None, None) for item in given_ids]
    frame = pl.DataFrame(rows, SCHEMA, orient="row")
    return read_user_items([frame], list(items), LogFilters(None, 1, 500, 1, repair))


def test_ids_are_repaired_only_where_one_item_is_meant() -> None:
    items = ["18", "0042", "Mug-A", "x", "X"]
    log = repaired(["18.0", " 18 ", "42", "mug-a", "x ", "17"], items)
    assert sorted(log.taken.nonzero()[1].tolist()) == [0, 1, 2]
    assert log.counts["of_unknown_items"] == 2  # "x " may be x or X
    assert log.advice == (
        "4 interactions were joined by repaired IDs: 1 differed in '.0' at the end ('18.0' for '18'), 1 differed in "
        "blanks at the ends (' 18 ' for '18'), 1 differed in leading zeros ('42' for '0042'), 1 differed in upper and "
        "lower case ('mug-a' for 'Mug-A').",
        "2 interactions name no item, such as 'x '.",
    )


@pytest.mark.parametrize("given", ["Caf\u00e9\u200b", "\ufeffCafe\u0301", "Cafe\u0301\u00a0"])
def test_ids_that_only_look_the_same_are_told_and_repaired(given: str) -> None:
    told = repaired([given, given], ["Caf\u00e9"], repair=False)
    assert told.advice == (
        f"2 interactions name no item, such as {given!r}. Of these, 2 differ only in characters that cannot be seen "
        f"({given!r} for 'Caf\u00e9'). --repair-ids joins them.",
    )
    assert repaired([given, given], ["Caf\u00e9"]).taken.nonzero()[1].tolist() == [0]


def test_without_repair_the_advice_counts_each_difference() -> None:
    log = repaired(["18.0", "18.0", "19"], ["18"], repair=False)
    assert log.counts["of_unknown_items"] == 3
    assert log.advice == (
        "3 interactions name no item, such as '18.0'. Of these, 2 differ only in '.0' at the end ('18.0' for '18'). "
        "--repair-ids joins them.",
    )


@pytest.mark.parametrize("repair", [False, True])
def test_interactions_of_skipped_items_are_told_apart(repair: bool) -> None:
    frame = pl.DataFrame(
        [("u", item, None, None) for item in ("18", "18.0", "gone", "GONE", "gone")], SCHEMA, orient="row"
    )
    filters = LogFilters(None, 1, 500, 1, repair)
    log = read_user_items([frame], ["18"], filters, {"gone", "GONE"})
    assert log.counts["of_unknown_items"] == (3 if repair else 4)
    assert log.advice[0] == "3 interactions name skipped items, such as 'gone'; the report has the reasons."
    assert log.advice[1].startswith("1 interaction")
    assert log.taken.toarray().tolist() == [[1.0]]
