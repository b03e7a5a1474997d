"""Calibration: it finds a planted distortion, leaves the order alone, and is named by what it holds."""

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
    """An answer to each question, drawn by the probabilities in its row."""
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
    """Log-odds, and claims that are true as often as a sigmoid of them says."""
    rng = np.random.default_rng(0)
    log_odds = rng.normal(0, 3, count)
    said = lapses + (1 - 2 * lapses) / (1 + np.exp(-(scale * log_odds + bias)))
    return log_odds, rng.random(count) < said


# One sigmoid.


@pytest.mark.parametrize(
    ("scale", "bias", "lapses"), [(0.5, 0.3, 0.002), (2.0, -1.0, 0.05), (1.0, 0.0, 0.15)]
)
def test_a_planted_sigmoid_is_found(scale: float, bias: float, lapses: float) -> None:
    found = PlattScaling.fit(*claims(scale, bias, lapses, 20_000))
    assert found.scale == pytest.approx(scale, rel=0.1)
    assert found.bias == pytest.approx(bias, abs=0.15)
    assert found.lapses == pytest.approx(lapses, abs=0.01)


def test_a_probability_is_that_of_the_formula() -> None:
    found = PlattScaling(scale=2.0, bias=0.5, lapses=0.1).probability(np.array([-1000.0, 0.25, 1000.0]))
    assert found == pytest.approx([0.1, 0.1 + 0.8 / (1 + np.exp(-1.0)), 0.9])


def test_the_more_claims_there_were_the_surer_one_may_be() -> None:
    few, many = (
        PlattScaling.fit(np.tile([5.0, -5.0], n), np.tile([True, False], n)).probability(np.array([100.0]))[0]
        for n in (3, 300)
    )
    assert (few, many) == pytest.approx((7 / 8, 601 / 602), abs=1e-3)


def test_claims_that_are_all_true_are_believed_within_bounds() -> None:
    found = PlattScaling.fit(np.linspace(-1, 1, 20), np.ones(20, dtype=bool))
    assert found.probability(np.array([0.0]))[0] == pytest.approx(21 / 22, abs=0.01)


def test_a_head_that_says_the_contrary_is_not_turned_round() -> None:
    log_odds, valid = claims(1.0, 0.0, 0.05, 500)
    low, high = PlattScaling.fit(log_odds, ~valid).probability(np.array([-1.0, 1.0]))
    assert 0.3 < low < high < 0.7


# One softmax.


def test_a_planted_scale_and_planted_biases_are_found() -> None:
    scores = np.random.default_rng(0).normal(0, 0.3, (20_000, 3))
    found = VectorScaling.fit(scores, drawn(softmax(8 * scores + [1.0, -0.5, -0.5]), seed=1))
    assert found.scale == pytest.approx(8, rel=0.03)
    assert found.biases == pytest.approx([1.0, -0.5, -0.5], abs=0.05)


def test_probabilities_are_those_of_the_formula() -> None:
    scores = np.array([[0.2, -0.1, 0.5]])
    probability = VectorScaling(scale=3.0, biases=(0.1, 0.0, -0.1)).probability(scores)
    np.testing.assert_allclose(probability, softmax(3 * scores + [0.1, 0.0, -0.1]))


def test_scores_that_never_err_are_not_believed_without_end() -> None:
    few, many = (
        VectorScaling.fit(np.tile([[1.0, 0.0], [0.0, 1.0]], (n, 1)), np.tile([0, 1], n)) for n in (3, 300)
    )
    least = [float(one.probability(np.array([1.0, 0.0]))[1]) for one in (few, many)]
    assert least == pytest.approx([1 / 8, 1 / 602], rel=1e-2)


def test_scores_that_say_the_contrary_are_not_turned_round() -> None:
    found = VectorScaling.fit(np.tile([[1.0, 0.0], [0.0, 1.0]], (50, 1)), np.tile([1, 0], 50))
    assert 0 < found.scale < 0.1


def test_an_answer_that_never_was_true_is_not_impossible() -> None:
    found = VectorScaling.fit(np.zeros((30, 3)), np.tile([0, 1], 15))
    assert found.probability(np.zeros(3)) == pytest.approx([63 / 128, 63 / 128, 1 / 64], abs=1e-4)


def test_of_one_answer_one_can_be_sure() -> None:
    found = VectorScaling.fit(np.array([[0.3], [0.9]]), np.zeros(2, dtype=np.int64))
    assert found.probability(np.array([[0.1]])).tolist() == [[1.0]]


def test_without_biases_all_are_zero() -> None:
    scores = np.array([0.4, 0.1])
    np.testing.assert_allclose(VectorScaling().probability(scores), softmax(scores))


@given(
    arrays(np.float32, (4, 3), elements=st.floats(-1, 1, width=32)),
    st.floats(1e-2, 1e3),
    st.lists(st.floats(-20, 20), min_size=3, max_size=3),
)
def test_probabilities_of_a_question_add_up_to_one(
    scores: ndarray, scale: float, biases: list[float]
) -> None:
    probability = VectorScaling(scale=scale, biases=tuple(biases)).probability(scores)
    assert (probability >= 0).all()
    np.testing.assert_allclose(probability.sum(axis=1), 1.0)


# The whole.


def test_a_head_too_sure_of_itself_is_set_right_for_claims_it_was_not_calibrated_by() -> None:
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


def test_uncalibrated_log_odds_are_taken_at_their_word() -> None:
    found = UNCALIBRATED.validity_probability(np.array([-100.0, -1.0, 0.0, 1.0, 100.0]))
    assert found == pytest.approx([0.0, 0.268941, 0.5, 0.731059, 1.0], abs=1e-6)


@given(arrays(np.float64, 8, elements=st.floats(-30, 30)))
def test_the_likelier_claim_stays_the_likelier(log_odds: ndarray) -> None:
    fitted = Calibration(validity=PlattScaling(scale=0.3, bias=0.4, lapses=0.1))
    probability = fitted.validity_probability(np.sort(log_odds))
    assert (np.diff(probability) >= 0).all()


def test_each_similarity_is_calibrated_by_itself() -> None:
    rng = np.random.default_rng(0)
    strong, weak = (rng.normal(0, 1, (3_000, 3)) for _ in range(2))
    truth = drawn(softmax(4 * strong), seed=1)
    fitted = Calibration.fit(
        np.zeros(2), np.array([True, False]), {Similarity.TT: strong, Similarity.II: weak}, truth
    )
    assert fitted.relation_types[Similarity.TT].scale == pytest.approx(4, rel=0.1)
    assert fitted.relation_types[Similarity.II].scale < 0.1


def test_it_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    fitted = calibration()
    fitted.save(tmp_path)
    assert Calibration.load(tmp_path) == fitted
    assert (fitted.claims, fitted.edges) == (200, 200)


def test_a_checkpoint_without_one_is_uncalibrated_and_says_so(tmp_path: Path) -> None:
    UNCALIBRATED.save(tmp_path)
    assert not (tmp_path / CALIBRATION_FILE).exists()
    assert Calibration.load(tmp_path).version == "none"


def test_one_of_another_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / CALIBRATION_FILE).write_text('{"validity": {"temperature": 2.0}}')
    with pytest.raises(ArtifactError, match=r"calibration\.json is of another version of rcml"):
        Calibration.load(tmp_path)


def test_the_version_names_what_it_holds() -> None:
    fitted, again = calibration(), calibration()
    other = fitted.model_copy(update={"validity": PlattScaling(scale=2.0)})
    assert fitted.version == again.version != other.version
    assert len(fitted.version) == 12
    assert int(fitted.version, 16) >= 0


def test_relations_beyond_those_calibrated_have_the_mean_of_all_biases() -> None:
    softmax = VectorScaling(scale=2.0, biases=(1.0, -1.0))
    weights = np.exp([2 * 0.5 + 1, 2 * 0.1 - 1, 2 * 0.3 + 0])
    assert softmax.probability(np.array([0.5, 0.1, 0.3])) == pytest.approx(weights / weights.sum())
