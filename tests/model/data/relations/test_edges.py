"""Related pairs derived from a log: NPMI, and the choice of partners."""

from random import Random

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy import ndarray

from model.data.relations import edges
from model.data.relations.edges import RelatedPairs, related_pairs

# Of five users, 4 have A, 3 have B and 2 have C; 3 have A and B, 1 has A and C, and 1 has B and C.
TOY = np.array([[1, 1, 0], [1, 1, 0], [1, 1, 1], [1, 0, 0], [0, 0, 1]])

LOGS = arrays(bool, st.tuples(st.integers(2, 12), st.integers(2, 8)))


def related(
    taken: ndarray, *, min_support: int = 1, min_npmi: float = -1.0, partners: int = 10
) -> RelatedPairs:
    return related_pairs(sp.csr_array(taken.astype(np.float64)), min_support, min_npmi, partners)


def names(pairs: RelatedPairs) -> set[tuple[str, str]]:
    return {("ABCDEFGH"[a], "ABCDEFGH"[b]) for a, b in zip(pairs.a, pairs.b, strict=True)}


def test_npmi_and_support_match_values_computed_by_hand() -> None:
    pairs = related(TOY)
    found = {(a, b): (s, n) for a, b, s, n in zip(pairs.a, pairs.b, pairs.support, pairs.npmi, strict=True)}
    log = np.log
    assert found == {
        (0, 1): (3, pytest.approx(log(0.6 / (0.8 * 0.6)) / -log(0.6))),  # 0.437
        (0, 2): (1, pytest.approx(log(0.2 / (0.8 * 0.4)) / -log(0.2))),  # -0.292
        (1, 2): (1, pytest.approx(log(0.2 / (0.6 * 0.4)) / -log(0.2))),  # -0.113
    }


def test_drops_pairs_below_minimum_support_or_npmi() -> None:
    assert names(related(TOY, min_support=2)) == {("A", "B")}
    assert names(related(TOY, min_npmi=-0.2)) == {("A", "B"), ("B", "C")}


def test_keeps_a_pair_that_is_best_for_either_item() -> None:
    # A and B are each other's best partners, and B is the best partner of C. Neither A nor C has A-C as its best pair.
    assert names(related(TOY, partners=1)) == {("A", "B"), ("B", "C")}


def test_npmi_is_1_for_items_that_every_user_had() -> None:
    assert related(np.ones((4, 2))).npmi.tolist() == [1.0]


def test_breaks_npmi_ties_by_support() -> None:
    # B and C have the same users. A is independent of the other items: its NPMI is 0 with B and C (support 1), and
    # also with D (support 2).
    taken = np.zeros((8, 4), dtype=int)
    for item, users in enumerate(([0, 1, 2, 3], [0, 6], [0, 6], [2, 3, 4, 5])):
        taken[users, item] = 1
    pairs = related(taken, partners=1)
    assert names(pairs) == {("A", "D"), ("B", "C")}
    assert pairs.npmi.tolist() == pytest.approx([1.0, 0.0] if pairs.a[0] == 1 else [0.0, 1.0])


def test_breaks_remaining_ties_by_item_order() -> None:
    taken = np.array([[1, 1, 1], [1, 1, 1], [1, 0, 0], [0, 0, 0]])  # the users of B and C are the same
    assert names(related(taken, partners=1)) == {("A", "B"), ("B", "C")}


@given(LOGS)
def test_npmi_is_between_minus_1_and_1(taken: ndarray) -> None:
    npmi = related(taken).npmi
    assert (np.abs(npmi) <= 1 + 1e-12).all()


@given(LOGS, st.integers(1, 5), st.integers(1, 4))
def test_every_pair_is_ordered_and_has_correct_support(taken: ndarray, least: int, partners: int) -> None:
    pairs = related(taken, min_support=least, partners=partners)
    assert (pairs.a < pairs.b).all()
    assert (pairs.support >= least).all()
    assert pairs.support.tolist() == (taken[:, pairs.a] & taken[:, pairs.b]).sum(axis=0).tolist()


@given(LOGS, st.randoms(use_true_random=False))
def test_pairs_do_not_depend_on_order_of_users_or_items(taken: ndarray, random: Random) -> None:
    users, items = (random.sample(range(size), size) for size in taken.shape)
    before, after = related(taken), related(taken[users][:, items])
    renamed = {
        tuple(sorted((items[a], items[b]))): npmi
        for a, b, npmi in zip(after.a, after.b, after.npmi, strict=True)
    }
    assert renamed == pytest.approx(dict(zip(zip(before.a, before.b, strict=True), before.npmi, strict=True)))


@given(LOGS, st.integers(1, 3))
def test_every_item_with_partners_keeps_its_best_partner(taken: ndarray, partners: int) -> None:
    every, kept = related(taken), related(taken, partners=partners)
    for item in set(every.a) | set(every.b):
        best = every.npmi[(every.a == item) | (every.b == item)].max()
        assert best in kept.npmi[(kept.a == item) | (kept.b == item)]


@given(LOGS, st.integers(1, 40))
def test_counting_in_blocks_changes_nothing(taken: ndarray, most: int) -> None:
    whole = related(taken, min_support=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edges, "MAX_PAIRS_AT_ONCE", most)
        blocks = related(taken, min_support=2)
    for one, other in zip(vars(whole).values(), vars(blocks).values(), strict=True):
        assert one.tolist() == other.tolist()


@given(LOGS)
def test_support_is_the_number_of_common_users(taken: ndarray) -> None:
    pairs = related(taken, min_npmi=-1.0, partners=100)
    counted = {
        (a, b): s for a, b, s in zip(pairs.a.tolist(), pairs.b.tolist(), pairs.support.tolist(), strict=True)
    }
    items = range(taken.shape[1])
    common = {(a, b): int((taken[:, a] & taken[:, b]).sum()) for a in items for b in items if a < b}
    assert counted == {pair: count for pair, count in common.items() if count}


def test_heavy_users_take_part_with_a_sample_of_their_items() -> None:
    taken = np.zeros((41, 30))
    taken[:40, :2] = 1
    taken[40] = 1  # one user with all items has 900 of 1,060 pairs
    everything = related_pairs(sp.csr_array(taken), 1, -1.0, 100)
    sampled = related_pairs(sp.csr_array(taken), 1, -1.0, 100, max_pairs=260)
    assert len(everything.a) == 30 * 29 // 2
    assert len(sampled.a) in (45, 46)  # 10 items of the heavy user, and the pair of the others
    assert sampled.support.max() in (40, 41)
