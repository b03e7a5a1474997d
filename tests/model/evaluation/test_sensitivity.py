"""Overlap of answers and of true partners under two relations, computed by hand."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy import ndarray

from model.data.edge_table import EdgeTable
from model.evaluation.sensitivity import RelationPairs, answer_overlap, jaccard

ITEMS = 40


@dataclass(frozen=True)
class Shifted:
    """Scorer whose ten best candidates under relation r are the items from `shift * r` on."""

    shift: int

    def scores(self, items: ndarray, relation: int, candidates: ndarray) -> ndarray:
        best = (candidates >= self.shift * relation) & (candidates < self.shift * relation + 10)
        return np.tile(best.astype(float), (len(items), 1))


def table(*edges: tuple[int, int, int]) -> EdgeTable:
    return EdgeTable(*np.array(edges, dtype=np.int64).T)


def pairs_of(edges: EdgeTable) -> RelationPairs:
    return RelationPairs.of(edges, np.arange(30, ITEMS), np.array([1, 2, 3]))


def test_overlap_of_partners_is_their_jaccard_index() -> None:
    edges = table((30, 0, 1), (30, 1, 1), (30, 1, 2), (30, 2, 2), (30, 3, 2), (31, 5, 3), (6, 31, 1))
    pairs = pairs_of(edges)
    pairs_in_order = list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert pairs_in_order == [(0, 1), (0, 2), (1, 2)]
    assert pairs.related[:2].tolist() == [[True, False, False], [False, True, False]]
    assert not pairs.related[2:].any()
    assert pairs.truth[0, 0] == pytest.approx(1 / 4)
    assert pairs.truth[1, 1] == 0.0


@pytest.mark.parametrize("shift", [0, 2, 4, 10])
def test_overlap_of_answers_is_their_jaccard_index(shift: int) -> None:
    pairs = pairs_of(table((30, 31, 1)))
    found = answer_overlap(Shifted(shift), pairs, np.arange(30), block_scores=100)
    expected = [max(0, 10 - steps * shift) for steps in (1, 2, 1)]
    assert found == pytest.approx(np.tile([common / (20 - common) for common in expected], (10, 1)))


def test_item_is_not_among_its_own_answers() -> None:
    # Under relation 0 item 3 would be one of the ten best. The next candidate, 10, takes its place, and is also one of
    # the ten best under relation 1.
    pairs = RelationPairs.of(table((3, 5, 1)), np.array([3]), np.array([0, 1]))
    found = answer_overlap(Shifted(10), pairs, np.arange(30))
    assert found == pytest.approx(np.array([[1 / 19]]))


def test_order_does_not_change_the_overlap() -> None:
    assert jaccard(np.array([[1, 2, 3]]), np.array([[3, 9, 1]])) == pytest.approx(2 / 4)


def test_one_relation_has_no_pairs() -> None:
    pairs = RelationPairs.of(table((0, 1, 1)), np.array([0, 1]), np.array([1]))
    assert answer_overlap(Shifted(1), pairs, np.arange(ITEMS)).shape == (2, 0)
