"""Tests of calibration: it recovers planted parameters, preserves order, and derives its version from its content."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy import ndarray

from model.checkpoint.calibration import (
    CALIBRATION_FILE,
    UNCALIBRATED,
    Calibration,
    PlattScaling,
    VectorScaling,
)
from model.errors import ArtifactError
from model.evaluation.metrics import expected_calibration_error
from model.similarity import Similarity


def drawn(probability: ndarray, seed: int) -> ndarray:
    """Draw an answer to each question. Each row of `probability` belongs to one question, each column to one answer."""
    draws = np.random.default_rng(seed).random((len(probability), 1))
    return np.asarray((draws > probability.cumsum(axis=1)).sum(axis=1))


def softmax(scores: ndarray) -> ndarray:
    return np.asarray(np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True))


def calibration(questions: int = 200) -> Calibration:
    rng = np.random.default_rng(0)
    log_odds, scores = rng.normal(size=questions), rng.normal(size=(questions, 3))
    return Calibration.fit(
        log_odds,
        rng.random(questions) < 0.5,
        dict.fromkeys(Similarity, scores),
        drawn(softmax(scores), seed=1),
    )


def claims(scale: float, bias: float, lapses: float, count: int) -> tuple[ndarray, ndarray]:
    """Return random log-odds x, and for each claim whether it is true.

    A claim is true with the probability lapses + (1 - 2 lapses) / (1 + exp(-(scale x + bias))).
    """
    rng = np.random.default_rng(0)
    log_odds = rng.normal(0, 3, count)
    said = lapses + (1 - 2 * lapses) / (1 + np.exp(-(scale * log_odds + bias)))
    return log_odds, rng.random(count) < said


# Platt scaling.


@pytest.mark.parametrize(
    ("scale", "bias", "lapses"), [(0.5, 0.3, 0.002), (2.0, -1.0, 0.05), (1.0, 0.0, 0.15)]
)
def test_platt_scaling_recovers_planted_sigmoid(scale: float, bias: float, lapses: float) -> None:
    found = PlattScaling.fit(*claims(scale, bias, lapses, 20_000))
    assert found.scale == pytest.approx(scale, rel=0.1)
    assert found.bias == pytest.approx(bias, abs=0.15)
    assert found.lapses == pytest.approx(lapses, abs=0.01)


def test_platt_scaling_matches_formula() -> None:
    found = PlattScaling(scale=2.0, bias=0.5, lapses=0.1).probability(np.array([-1000.0, 0.25, 1000.0]))
    assert found == pytest.approx([0.1, 0.1 + 0.8 / (1 + np.exp(-1.0)), 0.9])


def test_platt_scaling_allows_more_certainty_with_more_claims() -> None:
    few, many = (
        PlattScaling.fit(np.tile([5.0, -5.0], n), np.tile([True, False], n)).probability(np.array([100.0]))[0]
        for n in (3, 300)
    )
    assert (few, many) == pytest.approx((7 / 8, 601 / 602), abs=1e-3)


def test_platt_scaling_of_only_true_claims_stays_below_certainty() -> None:
    found = PlattScaling.fit(np.linspace(-1, 1, 20), np.ones(20, dtype=bool))
    assert found.probability(np.array([0.0]))[0] == pytest.approx(21 / 22, abs=0.01)


def test_platt_scaling_does_not_invert_wrong_scores() -> None:
    log_odds, valid = claims(1.0, 0.0, 0.05, 500)
    low, high = PlattScaling.fit(log_odds, ~valid).probability(np.array([-1.0, 1.0]))
    assert 0.3 < low < high < 0.7


# Vector scaling.


def test_vector_scaling_recovers_planted_scale_and_biases() -> None:
    scores = np.random.default_rng(0).normal(0, 0.3, (20_000, 3))
    found = VectorScaling.fit(scores, drawn(softmax(8 * scores + [1.0, -0.5, -0.5]), seed=1))
    assert found.scale == pytest.approx(8, rel=0.03)
    assert found.biases == pytest.approx([1.0, -0.5, -0.5], abs=0.05)


def test_vector_scaling_matches_formula() -> None:
    scores = np.array([[0.2, -0.1, 0.5]])
    probability = VectorScaling(scale=3.0, biases=(0.1, 0.0, -0.1)).probability(scores)
    np.testing.assert_allclose(probability, softmax(3 * scores + [0.1, 0.0, -0.1]))


def test_vector_scaling_of_perfect_scores_stays_below_certainty() -> None:
    few, many = (
        VectorScaling.fit(np.tile([[1.0, 0.0], [0.0, 1.0]], (n, 1)), np.tile([0, 1], n)) for n in (3, 300)
    )
    least = [float(one.probability(np.array([1.0, 0.0]))[1]) for one in (few, many)]
    assert least == pytest.approx([1 / 8, 1 / 602], rel=1e-2)


def test_vector_scaling_does_not_invert_wrong_scores() -> None:
    found = VectorScaling.fit(np.tile([[1.0, 0.0], [0.0, 1.0]], (50, 1)), np.tile([1, 0], 50))
    assert 0 < found.scale < 0.1


def test_answer_that_was_never_true_keeps_positive_probability() -> None:
    found = VectorScaling.fit(np.zeros((30, 3)), np.tile([0, 1], 15))
    assert found.probability(np.zeros(3)) == pytest.approx([63 / 128, 63 / 128, 1 / 64], abs=1e-4)


def test_single_answer_has_probability_one() -> None:
    found = VectorScaling.fit(np.array([[0.3], [0.9]]), np.zeros(2, dtype=np.int64))
    assert found.probability(np.array([[0.1]])).tolist() == [[1.0]]


def test_empty_biases_mean_zero() -> None:
    scores = np.array([0.4, 0.1])
    np.testing.assert_allclose(VectorScaling().probability(scores), softmax(scores))


@given(
    arrays(np.float32, (4, 3), elements=st.floats(-1, 1, width=32)),
    st.floats(1e-2, 1e3),
    st.lists(st.floats(-20, 20), min_size=3, max_size=3),
)
def test_probabilities_of_a_question_sum_to_one(scores: ndarray, scale: float, biases: list[float]) -> None:
    probability = VectorScaling(scale=scale, biases=tuple(biases)).probability(scores)
    assert (probability >= 0).all()
    np.testing.assert_allclose(probability.sum(axis=1), 1.0)


# Complete calibration.


def test_calibration_corrects_overconfidence_on_unseen_claims() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 2, 8_000)
    valid = rng.random(8_000) < 1 / (1 + np.exp(-truth))
    too_sure = 3 * truth + 1
    here, there = slice(0, 4_000), slice(4_000, None)
    fitted = Calibration.fit(
        too_sure[here], valid[here], {Similarity.TT: np.zeros((1, 1))}, np.zeros(1, dtype=np.int64)
    )
    before, after = (
        expected_calibration_error(one.validity_probability(too_sure[there]), valid[there]) or 0.0
        for one in (UNCALIBRATED, fitted)
    )
    assert before > 0.1
    assert after < 0.02


def test_default_calibration_applies_plain_sigmoid() -> None:
    found = UNCALIBRATED.validity_probability(np.array([-100.0, -1.0, 0.0, 1.0, 100.0]))
    assert found == pytest.approx([0.0, 0.268941, 0.5, 0.731059, 1.0], abs=1e-6)


@given(arrays(np.float64, 8, elements=st.floats(-30, 30)))
def test_calibration_preserves_order_of_claims(log_odds: ndarray) -> None:
    fitted = Calibration(validity=PlattScaling(scale=0.3, bias=0.4, lapses=0.1))
    probability = fitted.validity_probability(np.sort(log_odds))
    assert (np.diff(probability) >= 0).all()


def test_calibrates_each_similarity_separately() -> None:
    rng = np.random.default_rng(0)
    strong, weak = (rng.normal(0, 1, (3_000, 3)) for _ in range(2))
    truth = drawn(softmax(4 * strong), seed=1)
    fitted = Calibration.fit(
        np.zeros(2), np.array([True, False]), {Similarity.TT: strong, Similarity.II: weak}, truth
    )
    assert fitted.relation_types[Similarity.TT].scale == pytest.approx(4, rel=0.1)
    assert fitted.relation_types[Similarity.II].scale < 0.1


def test_loads_calibration_as_saved(tmp_path: Path) -> None:
    fitted = calibration()
    fitted.save(tmp_path)
    assert Calibration.load(tmp_path) == fitted
    assert (fitted.claims, fitted.edges) == (200, 200)


def test_checkpoint_without_calibration_has_version_none(tmp_path: Path) -> None:
    UNCALIBRATED.save(tmp_path)
    assert not (tmp_path / CALIBRATION_FILE).exists()
    assert Calibration.load(tmp_path).version == "none"


def test_rejects_calibration_of_another_format(tmp_path: Path) -> None:
    (tmp_path / CALIBRATION_FILE).write_text('{"validity": {"temperature": 2.0}}')
    with pytest.raises(ArtifactError, match=r"calibration\.json was written by another version of rcml"):
        Calibration.load(tmp_path)


def test_version_depends_only_on_content() -> None:
    fitted, again = calibration(), calibration()
    other = fitted.model_copy(update={"validity": PlattScaling(scale=2.0)})
    assert fitted.version == again.version != other.version
    assert len(fitted.version) == 12
    assert int(fitted.version, 16) >= 0


def test_relations_added_after_calibration_get_mean_bias() -> None:
    softmax = VectorScaling(scale=2.0, biases=(1.0, -1.0))
    weights = np.exp([2 * 0.5 + 1, 2 * 0.1 - 1, 2 * 0.3 + 0])
    assert softmax.probability(np.array([0.5, 0.1, 0.3])) == pytest.approx(weights / weights.sum())
