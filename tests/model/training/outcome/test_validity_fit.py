"""Tests of the fit of the validity head: it learns a rule as well as scikit-learn's MLP, and is reproducible."""

import numpy as np
import pytest
import torch
from numpy import ndarray
from sklearn.neural_network import MLPClassifier

from model.checkpoint.validity import PairVectors, ValidityHead
from model.training.outcome.validity_fit import fit_validity_head
from tests.model.checkpoint.test_validity import random_pairs

CPU = torch.device("cpu")


def rule(pairs: PairVectors) -> ndarray:
    """Label each pair as related if the cosine of its texts is positive."""
    return np.asarray((pairs.text_a * pairs.text_b).sum(axis=1) > 0)


def accuracy(head: ValidityHead, pairs: PairVectors, valid: ndarray) -> float:
    return float(((head.probability(pairs) >= 0.5) == valid).mean())


@pytest.fixture(scope="module")
def head() -> ValidityHead:
    pairs = random_pairs(2000, seed=0)
    return fit_validity_head(pairs, rule(pairs), 0, CPU)


def test_learns_planted_rule_that_holds_for_unseen_pairs(head: ValidityHead) -> None:
    pairs = random_pairs(1000, seed=1)
    assert accuracy(head, pairs, rule(pairs)) > 0.95


def test_fit_is_reproducible_with_same_seed(head: ValidityHead) -> None:
    pairs, asked = random_pairs(2000, seed=0), random_pairs(20, seed=7)
    same, other = (fit_validity_head(pairs, rule(pairs), seed, CPU).probability(asked) for seed in (0, 1))
    np.testing.assert_array_equal(same, head.probability(asked))
    assert (other != same).any()


@pytest.mark.parametrize("count", [10, 40])
def test_fits_head_to_few_claims(count: int) -> None:
    pairs = random_pairs(count, seed=8)
    valid = np.arange(count) % 2 == 0
    probability = fit_validity_head(pairs, valid, 0, CPU).probability(pairs)
    assert ((probability > 0) & (probability < 1)).all()


@pytest.mark.parametrize(("claims", "dim"), [(600, 8), (6000, 256)])
def test_is_as_accurate_as_scikit_learn(claims: int, dim: int) -> None:
    few = np.random.default_rng(1).integers(
        0, 5, claims + 2000
    )  # five relations, which share rows of the first layer
    whole = random_pairs(claims + 2000, seed=2, dim=dim)
    whole = PairVectors(whole.text_a, whole.image_a, whole.text_b, whole.image_b, whole.relation[few])
    noise = np.random.default_rng(3).random(len(few)) < 0.05
    valid = (rule(whole) & (few > 0)) ^ noise  # no claim under the first relation is true
    train, asked = (
        PairVectors(*(vectors[rows] for vectors in vars(whole).values()))
        for rows in (slice(claims), slice(claims, None))
    )
    theirs = MLPClassifier(
        (64,), alpha=1.0, batch_size=256, max_iter=60, early_stopping=True, n_iter_no_change=6
    )
    theirs.random_state = 0
    theirs.fit(train.features(), valid[:claims])
    expected = float((theirs.predict(asked.features()) == valid[claims:]).mean())
    head = fit_validity_head(train, valid[:claims], 0, CPU)
    assert accuracy(head, asked, valid[claims:]) > expected - 0.02


def test_weights_are_those_of_best_epoch_in_evaluation_order() -> None:
    pairs = random_pairs(50, seed=4)  # fewer than 100 claims: nothing is held out
    valid = rule(pairs)
    head = fit_validity_head(pairs, valid, 0, CPU)
    assert head.weight_1.shape == (pairs.features().shape[1], 64)
    assert accuracy(head, pairs, valid) > 0.9
