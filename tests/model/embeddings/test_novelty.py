"""Novelty of free-text relations, measured on the scale of the trained relations."""

import numpy as np
import pytest

from model.embeddings.novelty import Novelty
from model.records import INTRA_RELATION, Relation

RELATIONS = (INTRA_RELATION, Relation("worn", "Worn together."), Relation("read", "Read together."))

VECTORS = np.array([[0, 0, 2, 0], [3, 0, 0, 0], [0.6, 0.8, 0, 0]], np.float32)
"""h_E of `RELATIONS`: cosine 0 between the intra-sample relation and both other relations, and 0.6 between those."""


def test_nearest_has_greatest_cosine_and_is_never_intra_sample() -> None:
    found = Novelty.of(np.array([0.5, 0, 5, 0], np.float32), RELATIONS, VECTORS)
    assert found.nearest.relation_id == "worn"
    assert found.cosine == pytest.approx(0.5 / np.sqrt(25.25))


def test_threshold_is_a_quarter_of_the_way_from_unrelated_to_least_related() -> None:
    found = Novelty.of(VECTORS[1], RELATIONS, VECTORS)
    assert found.familiar_from == pytest.approx(0.6 / 4)
    assert found.cosine == pytest.approx(1)
    assert not found.out_of_distribution
    shifted = np.hstack(
        [VECTORS, np.full((3, 1), 2.0, np.float32) * np.linalg.norm(VECTORS, axis=1)[:, None]]
    )
    assert Novelty.of(shifted[1], RELATIONS, shifted).familiar_from == pytest.approx(4 / 5 + 0.6 / 5 / 4)


@pytest.mark.parametrize(("cosine", "far"), [(0.2, False), (0.1, True)])
def test_cosine_below_threshold_is_out_of_distribution(cosine: float, far: bool) -> None:
    vector = np.array([cosine, 0, 0, np.sqrt(1 - cosine**2)], np.float32)
    assert Novelty.of(7 * vector, RELATIONS, VECTORS).out_of_distribution is far


def test_single_trained_relation_sets_upper_end_of_scale_to_one() -> None:
    found = Novelty.of(VECTORS[1], RELATIONS[:2], VECTORS[:2])
    assert found.familiar_from == pytest.approx(0.25)
    assert not found.out_of_distribution


def test_nothing_is_out_of_distribution_if_network_ignores_relations() -> None:
    found = Novelty.of(np.ones(4, np.float32), RELATIONS, np.full((3, 4), 0.3, np.float32))
    assert not found.out_of_distribution
