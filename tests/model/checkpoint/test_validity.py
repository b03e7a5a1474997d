"""Tests of the validity head: it is symmetric, and a loaded head gives the same probabilities."""

from pathlib import Path

import numpy as np
import pytest
from numpy import ndarray

from model.checkpoint.validity import PairVectors, ValidityHead

DIM = 8


def random_pairs(count: int, seed: int, dim: int = DIM) -> PairVectors:
    rng = np.random.default_rng(seed)

    def unit() -> ndarray:
        vectors = rng.normal(size=(count, dim)).astype(np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    return PairVectors(unit(), unit(), unit(), unit(), unit())


@pytest.fixture(scope="module")
def head() -> ValidityHead:
    rng = np.random.default_rng(0)
    weights = (
        rng.normal(size=shape).astype(np.float32) * np.float32(0.3)
        for shape in ((4 * DIM + 3, 6), (6,), (6,), ())
    )
    return ValidityHead(*map(np.asarray, weights))


def test_probability_does_not_depend_on_item_order(head: ValidityHead) -> None:
    pairs = random_pairs(50, seed=2)
    swapped = PairVectors(pairs.text_b, pairs.image_b, pairs.text_a, pairs.image_a, pairs.relation)
    np.testing.assert_allclose(head.probability(swapped), head.probability(pairs), atol=1e-6)


def test_probability_does_not_depend_on_relation_vector_length(head: ValidityHead) -> None:
    pairs = random_pairs(50, seed=3)
    longer = PairVectors(pairs.text_a, pairs.image_a, pairs.text_b, pairs.image_b, 7 * pairs.relation)
    np.testing.assert_allclose(head.probability(longer), head.probability(pairs), atol=1e-6)


def test_loaded_head_gives_same_probabilities(head: ValidityHead, tmp_path: Path) -> None:
    pairs = random_pairs(50, seed=4)
    head.save(tmp_path)
    np.testing.assert_array_equal(ValidityHead.load(tmp_path).probability(pairs), head.probability(pairs))


def test_probability_is_sigmoid_of_perceptron(head: ValidityHead) -> None:
    pairs = random_pairs(50, seed=5)
    hidden = np.maximum(pairs.features() @ head.weight_1 + head.bias_1, 0)
    expected = 1 / (1 + np.exp(-(hidden @ head.weight_2 + head.bias_2)))
    np.testing.assert_allclose(head.probability(pairs), expected, atol=1e-6)


@pytest.mark.parametrize(("output", "expected"), [(100.0, 1.0), (-100.0, 0.0)])
def test_extreme_log_odds_do_not_overflow(output: float, expected: float) -> None:
    size = 4 * DIM + 3
    head = ValidityHead(
        np.zeros((size, 1), np.float32),
        np.zeros(1, np.float32),
        np.zeros(1, np.float32),
        np.array(output, np.float32),
    )
    assert head.probability(random_pairs(3, seed=9)).tolist() == pytest.approx([expected] * 3)
