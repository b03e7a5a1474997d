"""p-values agree with scipy, are uniform if there is no difference, and are adjusted as Holm describes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, permutation_test

from model.evaluation.significance import holm, sign_flip_p


def exact_p(totals: np.ndarray) -> float:
    """Return the p of all sign flips by scipy."""
    result = permutation_test(
        (totals,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    return float(result.pvalue)


@pytest.mark.parametrize("shift", [0.0, 0.4, 0.8])
def test_p_equals_that_of_all_flips(shift: float) -> None:
    rng = np.random.default_rng(3)
    differences = rng.normal(shift, 1, (10, 2))
    found = sign_flip_p(differences, np.arange(10), rng, draws=40_000)
    for rival in range(2):
        assert found[rival] == pytest.approx(exact_p(differences[:, rival]), abs=0.01)


def test_cases_of_one_item_are_flipped_together() -> None:
    rng = np.random.default_rng(4)
    totals = rng.normal(0.5, 1, 9)
    parts, cluster = np.repeat(totals / 50, 50), np.repeat(np.arange(9), 50)
    assert sign_flip_p(parts[:, None], cluster, rng)[0] == pytest.approx(exact_p(totals), abs=0.015)
    assert sign_flip_p(parts[:, None], np.arange(450), rng)[0] < exact_p(totals) / 3


def test_p_is_uniform_if_there_is_no_difference() -> None:
    rng = np.random.default_rng(5)
    differences = rng.choice([-1.0, -0.5, 0.3, 1.2], (300, 400)) * rng.choice([-1, 1], (300, 400))
    found = sign_flip_p(differences, np.repeat(np.arange(100), 3), rng, draws=2000)
    assert kstest(found, "uniform").pvalue > 0.05
    assert (found <= 0.05).mean() == pytest.approx(0.05, abs=0.03)


def test_smallest_p_is_one_over_draws_plus_one() -> None:
    assert sign_flip_p(np.ones((60, 1)), np.arange(60), np.random.default_rng(0), 999)[0] == 1 / 1000


def test_equal_systems_have_p_1() -> None:
    assert sign_flip_p(np.zeros((60, 1)), np.arange(60), np.random.default_rng(0), 99)[0] == 1.0


def test_sign_of_the_difference_does_not_matter() -> None:
    differences = np.random.default_rng(6).normal(0.2, 1, (40, 1))
    one, other = (
        sign_flip_p(sign * differences, np.arange(40), np.random.default_rng(0)) for sign in (1, -1)
    )
    assert one == pytest.approx(other, abs=0.01)


def test_blocks_give_the_number_of_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.evaluation.significance.MAX_BLOCK_SIGNS", 70)
    found = sign_flip_p(np.ones((20, 1)), np.arange(20), np.random.default_rng(0), 500)
    assert found[0] == 1 / 501


def test_holm_multiplies_each_p_by_the_number_of_remaining_tests() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.5])) == pytest.approx([0.04, 0.09, 0.09, 0.5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_adjusted_p_lies_between_p_and_bonferroni(raw: list[float]) -> None:
    p = np.array(raw)
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, p * len(p)) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()
