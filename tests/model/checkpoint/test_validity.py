"""Tests of the validity head: it learns a planted rule, is symmetric, and its NumPy code matches scikit-learn."""

from pathlib import Path

import numpy as np
import pytest
import sklearn.neural_network
from numpy import ndarray

from model.checkpoint.validity import PairVectors, ValidityHead

DIM = 8


def random_pairs(count: int, seed: int) -> PairVectors:
    rng = np.random.default_rng(seed)

    def unit() -> ndarray:
        vectors = rng.normal(size=(count, DIM)).astype(np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    return PairVectors(unit(), unit(), unit(), unit(), unit())


def rule(pairs: PairVectors) -> ndarray:
    """Label each pair as related if the cosine of its texts is positive."""
    return np.asarray((pairs.text_a * pairs.text_b).sum(axis=1) > 0)


@pytest.fixture(scope="module")
def head() -> ValidityHead:
    pairs = random_pairs(2000, seed=0)
    return ValidityHead.fit(pairs, rule(pairs), seed=0)


def test_learns_planted_rule_that_holds_for_unseen_pairs(head: ValidityHead) -> None:
    pairs = random_pairs(1000, seed=1)
    assert ((head.probability(pairs) >= 0.5) == rule(pairs)).mean() > 0.95


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


def test_probability_matches_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = []

    class Remembering(sklearn.neural_network.MLPClassifier):  # type: ignore[misc]
        def fit(self, features: ndarray, valid: ndarray) -> "Remembering":
            fitted.append(self)
            super().fit(features, valid)
            return self

    monkeypatch.setattr(sklearn.neural_network, "MLPClassifier", Remembering)
    train, asked = random_pairs(400, seed=5), random_pairs(100, seed=6)
    head = ValidityHead.fit(train, rule(train), seed=0)
    expected = fitted[0].predict_proba(asked.features())[:, 1]
    np.testing.assert_allclose(head.probability(asked), expected, atol=1e-5)


def test_fit_is_reproducible_with_same_seed(head: ValidityHead) -> None:
    pairs, asked = random_pairs(2000, seed=0), random_pairs(20, seed=7)
    same, other = (ValidityHead.fit(pairs, rule(pairs), seed=seed).probability(asked) for seed in (0, 1))
    np.testing.assert_array_equal(same, head.probability(asked))
    assert (other != same).any()


@pytest.mark.parametrize("count", [10, 40])
def test_fits_head_to_few_claims(count: int) -> None:
    pairs = random_pairs(count, seed=8)
    valid = np.arange(count) % 2 == 0
    probability = ValidityHead.fit(pairs, valid, seed=0).probability(pairs)
    assert ((probability > 0) & (probability < 1)).all()


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
