"""Tests of the warnings about relations without effect."""

import numpy as np
import pytest

from model.embeddings.encoding import Encoding, unit_rows
from model.records import INTRA_RELATION, Relation
from model.training.outcome.conditioning_check import conditioning_warnings, mean_relation_cosine

RELATIONS = (INTRA_RELATION, Relation("a", "One."), Relation("b", "Two."), Relation("c", "Three."))


def drawn(*shape: int) -> np.ndarray:
    return unit_rows(np.random.default_rng(0).standard_normal(shape), 1e-12)


def same_under_every_relation(items: int) -> np.ndarray:
    return np.repeat(drawn(items, 1, 6), len(RELATIONS), axis=1)


def test_mean_relation_cosine_equals_mean_over_pairs() -> None:
    vectors = drawn(5, 3, 6)
    expected = np.mean([vectors[i, a] @ vectors[i, b] for i in range(5) for a, b in ((0, 1), (0, 2), (1, 2))])
    assert mean_relation_cosine(vectors) == pytest.approx(expected, abs=1e-6)


def test_no_warning_if_relations_change_vectors_and_differ() -> None:
    assert conditioning_warnings(Encoding(drawn(5, 4, 6), drawn(5, 4, 6)), RELATIONS, drawn(4, 6)) == []


def test_warns_about_each_modality_without_conditioning() -> None:
    encoding = Encoding(drawn(5, 4, 6), same_under_every_relation(5))
    [warning] = conditioning_warnings(encoding, RELATIONS, drawn(4, 6))
    assert warning.startswith("The relation hardly changes the image vectors")
    assert "mean cosine of 1.0000" in warning


def test_warns_about_coinciding_relations_of_any_length() -> None:
    vectors = drawn(4, 6)
    vectors[3] = 7 * vectors[1]
    [warning] = conditioning_warnings(Encoding(drawn(5, 4, 6), drawn(5, 4, 6)), RELATIONS, vectors)
    assert warning.startswith("The relations a and c have almost the same encoded description")


def test_single_relation_has_nothing_to_compare() -> None:
    encoding = Encoding(same_under_every_relation(2)[:, :2], same_under_every_relation(2)[:, :2])
    assert conditioning_warnings(encoding, RELATIONS[:2], drawn(2, 6)) == []
