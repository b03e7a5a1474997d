"""Splits by a hash of the item IDs and by time: which items move when others are added, and the shares."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.splits import split_by_hash, split_by_time, split_of
from model.errors import InputError
from model.records import Split

IDS = st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=30)


def alone(ids: list[str]) -> np.ndarray:
    return np.arange(len(ids))


@given(old=IDS, new=IDS, seed=st.integers(0, 9))
def test_adding_items_never_moves_an_old_one(old: list[str], new: list[str], seed: int) -> None:
    before = dict(zip(old, split_by_hash(old, alone(old), 0.2, 0.3, seed), strict=True))
    for every in ([*old, *(set(new) - set(old))], sorted({*old, *new})):
        after = dict(zip(every, split_by_hash(every, alone(every), 0.2, 0.3, seed), strict=True))
        assert {item: after[item] for item in old} == before


def test_splits_of_a_seed_are_those_of_earlier_versions() -> None:
    # A change of the hash would move the items of every shop.
    found = [split_of(item, 0.3, 0.3, 0).value for item in ("a", "b", "c", "B00001", "ß", "")]
    assert found == ["test", "train", "test", "validation", "test", "validation"]


@given(item=st.text(max_size=20), test=st.floats(0, 0.5), more=st.floats(0, 0.3), seed=st.integers(0, 3))
def test_a_larger_share_moves_items_only_out_of_training(
    item: str, test: float, more: float, seed: int
) -> None:
    before, after = split_of(item, 0.2, test, seed), split_of(item, 0.2, test + more, seed)
    assert after == before or (before, after) == (Split.TRAIN, Split.TEST)
    before, after = split_of(item, test, 0.2, seed), split_of(item, test + more, 0.2, seed)
    assert after == before or (before, after) == (Split.TRAIN, Split.VALIDATION)


def test_shares_are_within_three_standard_deviations_also_within_every_part_of_the_catalogue() -> None:
    ids = [str(number) for number in range(20_000)]
    splits = split_by_hash(ids, alone(ids), 0.1, 0.2, 0)
    for part in range(10):
        counts = Counter(splits[part::10])
        for split, share in ((Split.TEST, 0.2), (Split.VALIDATION, 0.1)):
            assert abs(counts[split] - 2_000 * share) < 3 * np.sqrt(2_000 * share * (1 - share))


def test_a_share_of_zero_holds_out_nothing() -> None:
    ids = [str(number) for number in range(1_000)]
    assert set(split_by_hash(ids, alone(ids), 0.0, 0.0, 0)) == {Split.TRAIN}


def test_near_duplicates_have_the_split_of_the_first_of_them() -> None:
    ids = [str(number) for number in range(200)]
    groups = np.arange(200) // 2 * 2  # items 0 and 1, 2 and 3, ...
    splits = split_by_hash(ids, groups, 0.2, 0.3, 0)
    assert splits[1::2] == splits[::2] == split_by_hash(ids[::2], alone(ids[::2]), 0.2, 0.3, 0)


def test_by_time_the_latest_items_are_the_test_and_those_before_them_the_validation() -> None:
    ids = list("abcdefghij")
    seen = {item: float(time) for time, item in enumerate("jihgfedcba")}
    splits = split_by_time(ids, alone(ids), seen, 0.2, 0.3)
    assert splits == [Split.TEST] * 3 + [Split.VALIDATION] * 2 + [Split.TRAIN] * 5


def test_by_time_items_that_begin_together_are_in_one_split() -> None:
    ids = list("abcdefgh")
    seen = dict(zip(ids, [1.0, 2.0, 3.0, 4.0, 4.0, 4.0, 5.0, 6.0], strict=True))
    splits = split_by_time(ids, alone(ids), seen, 0.25, 0.25)  # the last four; d, e and f are at one time
    assert splits == [Split.TRAIN] * 6 + [Split.TEST] * 2


def test_by_time_a_group_counts_from_its_earliest_interaction_and_unseen_items_are_trained_on() -> None:
    ids = list("abcdef")
    seen = {"a": 9.0, "b": 1.0, "c": 2.0, "d": 3.0, "e": 4.0}
    groups = np.array([0, 0, 2, 3, 4, 5])  # b, seen first, is a near-duplicate of a
    splits = split_by_time(ids, groups, seen, 0.2, 0.2)
    assert splits == [*[Split.TRAIN] * 3, Split.VALIDATION, Split.TEST, Split.TRAIN]


@given(st.lists(st.integers(0, 6), min_size=3, max_size=40).filter(lambda times: len(set(times)) >= 3))
def test_by_time_no_training_item_begins_after_a_held_out_one(times: list[int]) -> None:
    ids = [str(number) for number in range(len(times))]
    seen = {item: float(time) for item, time in zip(ids, times, strict=True)}
    splits = split_by_time(ids, alone(ids), seen, 0.2, 0.3)
    latest = {
        split: max((t for t, s in zip(times, splits, strict=True) if s == split), default=-1)
        for split in Split
    }
    for time, split in zip(times, splits, strict=True):
        if split != Split.TRAIN:
            assert time > latest[Split.TRAIN]
        if split == Split.TEST:
            assert time > latest[Split.VALIDATION]


def test_by_time_a_log_without_times_is_refused_with_the_remedy() -> None:
    with pytest.raises(InputError, match=r"at least 3 different times, but the log has 0\. .*--split items"):
        split_by_time(list("abc"), alone(list("abc")), {}, 0.1, 0.2)
