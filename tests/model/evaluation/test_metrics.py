"""Metrics of the paper, checked by hand on small matrices and compared with simple loops over random data."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy import ndarray

from model.data.edge_table import EdgeTable
from model.embeddings.encoding import Encoding
from model.evaluation.metrics import (
    Reliability,
    area_under_curve,
    expected_calibration_error,
    hit_at,
    interval,
    log_loss,
    relation_type_scores,
    retrieval_hits,
)
from model.evaluation.sampling import Queries
from model.similarity import Similarity, View

FIRST = np.zeros(4, dtype=np.int64)


def test_hit_needs_true_candidate_among_k_best() -> None:
    scores = np.array(
        [
            [0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],  # best
            [0.5, 0.9, 0.8, 0.1, 0.1, 0.1, 0.1, 0.1],  # third
            [0.5, 0.9, 0.8, 0.7, 0.1, 0.1, 0.1, 0.1],  # fourth
            [0.0, 0.9, 0.8, 0.7, 0.1, 0.1, 0.1, 0.1],  # last
        ]
    )
    assert hit_at(3, scores, FIRST).tolist() == [1.0, 1.0, 0.0, 0.0]


def test_true_candidate_can_be_in_any_column() -> None:
    scores = np.tile(np.arange(8.0), (4, 1))
    assert hit_at(2, scores, np.array([0, 5, 6, 7])).tolist() == [0.0, 0.0, 1.0, 1.0]


def test_tie_counts_as_its_expected_value() -> None:
    scores = np.array(
        [
            [0.5] * 8,  # 8 candidates tie for 3 places
            [0.5, 0.9, 0.9, 0.5, 0.5, 0.5, 0.1, 0.1],  # 4 candidates tie for 1 place
            [0.5, 0.9, 0.9, 0.9, 0.5, 0.1, 0.1, 0.1],  # no place is left
            [0.5, 0.9, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1],  # 3 candidates tie for 2 places
        ]
    )
    assert hit_at(3, scores, FIRST) == pytest.approx([3 / 8, 1 / 4, 0.0, 2 / 3])


def test_float32_rounding_does_not_decide_between_candidates() -> None:
    scores = np.full((4, 8), 0.7) + np.random.default_rng(0).uniform(-4e-6, 4e-6, (4, 8))
    assert hit_at(4, scores, FIRST) == pytest.approx([0.5] * 4)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_equal_scores_get_chance_level(k: int) -> None:
    assert hit_at(k, np.zeros((4, 8)), FIRST) == pytest.approx([k / 8] * 4)


def test_nan_scores_count_as_misses() -> None:
    assert hit_at(5, np.full((4, 8), np.nan), FIRST).tolist() == [0.0] * 4


@given(arrays(np.float64, (4, 8), elements=st.sampled_from([0.0, 0.1, 0.2])), st.integers(1, 8))
def test_hits_over_all_columns_sum_to_k(scores: ndarray, k: int) -> None:
    total = sum(hit_at(k, scores, np.full(4, column)) for column in range(8))
    assert total == pytest.approx([k] * 4)


def random_encoding(items: int = 9, relations: int = 4, dim: int = 5) -> Encoding:
    rng = np.random.default_rng(1)

    def unit() -> ndarray:
        vectors = rng.normal(size=(items, relations, dim)).astype(np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))

    return Encoding(unit(), unit())


def places(truth: float, others: Iterator[float]) -> int:
    return 1 + sum(other > truth for other in others)


@pytest.mark.parametrize("similarity", Similarity)
def test_retrieval_compares_query_view_with_target_view_under_the_relation(
    similarity: Similarity,
) -> None:
    vectors = random_encoding()
    queries = Queries(
        np.array([0, 3]), np.array([2, 1]), np.array([[4, 5, 6, 7, 8, 1, 2], [7, 0, 1, 2, 4, 5, 6]])
    )
    a, b = (vectors.view(view) for view in similarity.views)
    for query, hit in enumerate(retrieval_hits(vectors, queries, similarity, k=2)):
        item, relation = queries.item[query], queries.relation[query]
        scores = [float(a[item, relation] @ b[other, relation]) for other in queries.candidates[query]]
        assert hit == (places(scores[0], iter(scores[1:])) <= 2)


@pytest.mark.parametrize("similarity", Similarity)
def test_relation_type_scores_are_cosines_under_each_relation(similarity: Similarity) -> None:
    vectors, known = random_encoding(), np.array([1, 2, 3])
    edges = EdgeTable(np.array([0, 2, 4, 6]), np.array([1, 3, 5, 7]), np.array([1, 2, 3, 3]))
    a, b = (vectors.view(view) for view in similarity.views)
    scores = relation_type_scores(vectors, edges, similarity, known)
    for edge, (left, right) in enumerate(zip(edges.a, edges.b, strict=True)):
        assert scores[edge] == pytest.approx([float(a[left, r] @ b[right, r]) for r in known], abs=1e-6)


def test_average_view_is_the_renormalised_mean_or_zero_if_views_cancel() -> None:
    text = np.array([[[1, 0]], [[1, 0]]], dtype=np.float32)
    image = np.array([[[0, 1]], [[-1, 0]]], dtype=np.float32)
    average = Encoding(text, image).view(View.AVERAGE)
    np.testing.assert_allclose(average[:, 0], [[0.5**0.5, 0.5**0.5], [0, 0]], atol=1e-7)


def test_interval_contains_the_mean_and_narrows_with_more_values() -> None:
    rng = np.random.default_rng(2)
    few, many = rng.random(50), rng.random(5000)
    wide, narrow = (interval(v, np.arange(len(v)), np.random.default_rng(0)) for v in (few, many))
    assert wide[0] < few.mean() < wide[1]
    # The expected width is 1.96 standard errors on each side.
    assert narrow[1] - narrow[0] == pytest.approx(2 * 1.96 * many.std() / 5000**0.5, rel=0.1)


def test_bootstrap_draws_values_of_one_item_together() -> None:
    values, items = np.repeat([0.0, 1.0] * 10, 100), np.repeat(np.arange(20), 100)
    low, high = interval(values, items, np.random.default_rng(0))
    assert high - low == pytest.approx(
        2 * 1.96 * 0.5 / 20**0.5, rel=0.2
    )  # as for 20 independent values, not 2,000


# Predicted probabilities of claims, and which claims are true.

SAID = np.array([0.05, 0.06, 0.55, 0.65, 0.95, 1.0])
TRUE = np.array([False, True, False, True, True, True])


def test_log_loss_is_the_mean_negative_log_probability_of_the_truth() -> None:
    probability = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
    assert log_loss(probability, np.array([0, 1])) == pytest.approx(-(np.log(0.5) + np.log(0.8)) / 2)


def test_log_loss_of_zero_probability_is_large_but_finite() -> None:
    assert 80 < log_loss(np.array([[0.0, 1.0]]), np.array([0])) < 100


def test_area_under_curve_is_the_share_of_correctly_ordered_pairs() -> None:
    # Only one of the 4 x 2 pairs of a true and a false claim is in the wrong order: 0.06 is below 0.55.
    assert area_under_curve(SAID, TRUE) == pytest.approx(7 / 8)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([0, 0, 0, 0], 0.5), ([1, 2, 3, 4], 1.0), ([4, 3, 2, 1], 0.0), ([1, 2, 2, 3], 0.875)],
)
def test_ties_count_half_in_the_area_under_the_curve(scores: list[int], expected: float) -> None:
    assert area_under_curve(np.array(scores), np.array([False, False, True, True])) == expected


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_area_under_curve_equals_comparison_of_all_pairs(claims: list[tuple[int, bool]]) -> None:
    trues, falses = ([score for score, valid in claims if valid is wanted] for wanted in (True, False))
    pairs = [(true > false) + (true == false) / 2 for true in trues for false in falses]
    scores, valid = (np.array(column) for column in zip(*claims, strict=True))
    found = area_under_curve(scores, valid)
    assert found == (pytest.approx(np.mean(pairs)) if pairs else None)


def test_bins_include_their_lower_bound_and_the_last_bin_includes_1() -> None:
    bins = Reliability.of(np.array([0.0, 0.5, 1.0]), np.array([False, True, True]), bins=2)
    assert bins.claims.tolist() == [1, 2]
    assert bins.probability.tolist() == [0.0, 0.75]
    assert bins.share.tolist() == [0.0, 1.0]


def test_filled_bins_omit_empty_bins() -> None:
    bins = Reliability.of(SAID, TRUE, bins=5).filled_bins()
    assert [one.claims for one in bins] == [2, 1, 1, 2]
    assert [one.share for one in bins] == [0.5, 0.0, 1.0, 1.0]
    assert [one.probability for one in bins] == pytest.approx([0.055, 0.55, 0.65, 0.975])


def test_calibration_error_weights_bins_by_their_claims() -> None:
    by_hand = (2 * abs(0.055 - 0.5) + 1 * 0.55 + 1 * abs(0.65 - 1) + 2 * abs(0.975 - 1)) / 6
    assert expected_calibration_error(SAID, TRUE, bins=5) == pytest.approx(by_hand)


def test_correct_probabilities_have_no_calibration_error() -> None:
    assert expected_calibration_error(np.full(10, 0.3), np.arange(10) < 3) == pytest.approx(0.0)


def test_calibration_error_without_claims_is_none() -> None:
    assert expected_calibration_error(np.array([]), np.array([], dtype=bool)) is None
