"""Guard against noise: when it speaks, and whether its suggestion helps."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.relations.noise import noise_advice


def test_noise_is_told_with_the_minimum_support_that_helps() -> None:
    # 20 items have 190 pairs. All but 15 of them are related; 40 have a support of 15 or more.
    support = np.array([3] * 100 + [14] * 35 + [15] * 30 + [22] * 10)
    assert noise_advice("tea", support, 20) == (
        "Under 'tea', 92% of all pairs of its 20 items are related, so the relation says little about a pair: raise "
        "--min-support to about 15."
    )


def test_half_of_all_pairs_is_no_noise() -> None:
    assert noise_advice("tea", np.full(95, 3), 20) is None
    assert noise_advice("tea", np.full(96, 3), 20) is not None


def test_few_items_are_not_judged() -> None:
    assert noise_advice("tea", np.full(55, 3), 11) is None
    assert noise_advice("tea", np.zeros(0, dtype=int), 0) is None


def test_equal_supports_lead_to_fewer_partners() -> None:
    advice = noise_advice("tea", np.full(190, 7), 20)
    assert advice is not None
    assert advice.endswith("lower --partners to about 2.")


@given(st.integers(12, 40), st.lists(st.integers(1, 30), min_size=66, max_size=780))
def test_the_suggested_support_is_the_lowest_that_leaves_a_quarter(items: int, supports: list[int]) -> None:
    every = items * (items - 1) // 2
    support = np.array(supports[:every])
    advice = noise_advice("tea", support, items)
    if len(support) <= every / 2:
        assert advice is None
        return
    assert advice is not None
    found = re.search(r"--min-support to about (\d+)", advice)
    if found is None:
        assert not any(0 < (support >= value).sum() <= every / 4 for value in range(1, 32))
        return
    left = [(support >= value).sum() for value in (int(found[1]), int(found[1]) - 1)]
    assert 0 < left[0] <= every / 4 < left[1]


@pytest.mark.parametrize("items", [12, 400])
def test_the_suggested_number_of_partners_leaves_at_most_a_quarter(items: int) -> None:
    every = items * (items - 1) // 2
    advice = noise_advice("tea", np.full(every, 7), items)
    assert advice is not None
    partners = int(re.search(r"--partners to about (\d+)", advice)[1])  # type: ignore[index]
    assert items * partners <= every / 4
