"""Histograms count every user and item exactly once."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from model.data.report.distributions import distributions

from .shop import counted

EDGES = pl.DataFrame({"a": [0], "b": [1]})


def test_items_per_user_users_per_item_and_pairs_per_item() -> None:
    users, items, pairs = counted().distributions
    # Users 0, 1, 2 took 3, 1 and 3 items; items 0, 1 have two users, 2, 3, 4 one.
    assert [(one.least, one.most, one.count) for one in users.bins] == [(1, 1, 1), (2, 4, 2)]
    assert (users.name, users.counted, users.median, users.most) == ("items per user", "users", 3, 3)
    assert [(one.least, one.count) for one in items.bins] == [(1, 3), (2, 2)]
    # a, b, c have two partners each (a-b is counted once), d and e one.
    assert [(one.least, one.count) for one in pairs.bins] == [(1, 2), (2, 3)]


def test_items_without_a_pair_are_counted_as_zero() -> None:
    [pairs] = distributions(None, EDGES, pairable=7)
    assert [(one.least, one.most, one.count) for one in pairs.bins] == [(0, 0, 5), (1, 1, 2)]


def test_no_edges_and_no_items_give_no_histogram() -> None:
    assert distributions(None, EDGES.head(0), pairable=0) == ()


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=20))
def test_bins_are_adjacent_and_contain_all_users(sizes: list[int]) -> None:
    user = [number for number, size in enumerate(sizes) for _ in range(size)]
    item = [place for size in sizes for place in range(size)]
    own = distributions(pl.DataFrame({"user": user, "item": item}), EDGES, 2)[0]
    assert sum(one.count for one in own.bins) == len(sizes)
    assert all(left.most + 1 == right.least for left, right in zip(own.bins, own.bins[1:], strict=False))
    assert own.bins[0].least <= min(sizes)
    assert max(sizes) == own.most <= own.bins[-1].most
