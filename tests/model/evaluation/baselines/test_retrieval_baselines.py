"""Baselines of retrieval score as described, and know nothing of items that are new."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy import ndarray
from sklearn.metrics.pairwise import cosine_similarity

from model.data.edge_table import EdgeTable
from model.evaluation.baselines.baseline import Baseline, ItemCosine, ItemPrior, unit_rows_of
from model.evaluation.baselines.co_occurrence import co_occurrence
from model.evaluation.baselines.evidence import Evidence
from model.evaluation.baselines.factors import CONFIDENCE, REGULARISATION, factorise, matrix_factors, solve
from model.evaluation.baselines.membership import membership_log_odds, membership_prior
from model.evaluation.baselines.popularity import popularity, random_order
from model.evaluation.baselines.texts import text_cosine, text_vectors
from model.evaluation.metrics import query_hits
from model.evaluation.sampling import Queries

TEXTS = (
    *(f"red apple fruit {n}" for n in range(6)),
    *(f"steel hammer tool {n}" for n in range(6)),
    "green apple fruit",
    "claw hammer tool",
)
"""Texts of 12 training items, fruit and tools, and of two new items."""

EDGES = EdgeTable(
    np.array([0, 1, 2, 3, 6, 7, 8]), np.array([1, 2, 3, 4, 7, 8, 9]), np.array([1, 1, 1, 1, 2, 2, 2])
)


def evidence(taken: tuple[sp.csr_array, ...] | None = None, users: ndarray | None = None) -> Evidence:
    return Evidence(TEXTS, np.arange(12), EDGES, 3, taken, users)


def log(*users: tuple[int, ...]) -> sp.csr_array:
    """Return a log with one row of items for each user."""
    found = sp.lil_array((len(users), len(TEXTS)))
    for user, items in enumerate(users):
        found[user, list(items)] = 1.0
    return sp.csr_array(found)


LOG = evidence((log(), log((0, 1, 2), (0, 1), (2,)), log((0, 2), (3,))), np.array([3, 2, 3, 1, *[0] * 9, 5]))
ALL = np.arange(len(TEXTS))


def row(baseline: Baseline, item: int, relation: int) -> ndarray:
    return np.asarray(baseline.scores(np.array([item]), relation, ALL)[0])


def test_candidates_of_each_query_score_as_in_the_whole_catalogue() -> None:
    own = np.array([[3, 5], [12, 0], [7, 7]])
    items = np.array([0, 1, 13])
    for baseline in (popularity(LOG), text_cosine(LOG), co_occurrence(LOG), matrix_factors(LOG, 0)):
        whole = np.asarray(baseline.scores(items, 1, ALL))
        assert baseline.scores(items, 1, own) == pytest.approx(np.take_along_axis(whole, own, axis=1))


def test_random_order_has_the_hits_of_chance() -> None:
    queries = Queries(
        np.array([0, 1]), np.array([1, 2]), np.array([[2, 3, 4, 5, 6, 7, 8], [2, 3, 4, 5, -1, -1, -1]])
    )
    assert query_hits(random_order(LOG), queries, k=3) == pytest.approx([3 / 7, 3 / 4])


def test_popularity_counts_users_in_the_whole_log() -> None:
    assert row(popularity(LOG), 0, 1)[[0, 1, 3, 13]].tolist() == [3, 2, 1, 5]
    assert "users" in popularity(LOG).meaning


def test_popularity_without_a_log_counts_partners_in_training() -> None:
    found = row(popularity(evidence()), 0, 1)
    assert found[[0, 1, 4, 5, 12, 13]].tolist() == [1, 2, 1, 0, 0, 0]


def test_membership_separates_the_items_of_each_relation_by_their_text() -> None:
    log_odds = membership_log_odds(evidence())
    assert log_odds[1, :6].min() > log_odds[1, 6:12].max()
    assert log_odds[1, 12] > log_odds[1, 13]
    assert log_odds[2, 12] < log_odds[2, 13]
    prior = membership_prior(log_odds)
    assert row(prior, 0, 2).tolist() == row(prior, 9, 2).tolist() == log_odds[2].tolist()


def test_membership_of_a_relation_without_edges_is_the_same_for_all_items() -> None:
    log_odds = membership_log_odds(evidence())
    assert log_odds[0] == pytest.approx(np.full(len(TEXTS), np.log(0.5 / 12.5)))


def test_text_cosine_equals_that_of_scikit_learn() -> None:
    vectors = text_vectors(evidence())
    expected = cosine_similarity(sp.csr_matrix(vectors))
    for item in (0, 12, 13):
        assert row(text_cosine(evidence()), item, 1) == pytest.approx(expected[item])
    assert row(text_cosine(evidence()), 12, 1)[0] > row(text_cosine(evidence()), 12, 1)[6]


def test_words_of_new_items_are_unknown() -> None:
    assert text_vectors(evidence())[[12]].nnz == 2  # apple and fruit, but not green


def test_co_occurrence_is_the_cosine_of_the_users_of_the_relation() -> None:
    found = row(co_occurrence(LOG), 0, 1)
    assert found[:4] == pytest.approx([1, 1, 1 / 2, 0])  # users {0, 1}, {0, 1}, {0, 2} and none
    assert row(co_occurrence(LOG), 0, 2)[:3] == pytest.approx([1, 0, 1])


def test_co_occurrence_without_a_log_compares_partners_in_the_graph() -> None:
    assert row(co_occurrence(evidence()), 0, 1)[[0, 2, 1]] == pytest.approx([1, 1 / 2**0.5, 0])


@pytest.mark.parametrize("found", [LOG, evidence()], ids=["log", "graph"])
def test_new_items_have_no_score_without_texts(found: Evidence) -> None:
    for baseline in (co_occurrence(found), matrix_factors(found, 0)):
        assert row(baseline, 0, 1)[[12, 13]].tolist() == [0, 0]
        assert not row(baseline, 12, 1).any()


def test_factors_minimise_the_weighted_squared_error() -> None:
    rng = np.random.default_rng(0)
    taken = sp.csr_array(rng.random((5, 4)) < 0.5, dtype=np.float64)
    others = rng.normal(size=(4, 3))
    found = solve(taken, others)

    def loss(row: int, factors: ndarray) -> float:
        wanted = taken.toarray()[row]
        errors = (1 + CONFIDENCE * wanted) * (wanted - others @ factors) ** 2
        return float(errors.sum() + REGULARISATION * factors @ factors)

    for user in np.flatnonzero(np.diff(taken.indptr)).tolist():
        for step in rng.normal(scale=1e-3, size=(20, 3)):
            assert loss(user, found[user]) < loss(user, found[user] + step)


def test_factors_reconstruct_two_groups() -> None:
    block = np.kron(np.eye(2), np.ones((8, 5)))
    users, items = factorise(sp.csr_array(block), 2, 10, np.random.default_rng(0))
    assert users @ items.T == pytest.approx(block, abs=0.1)


def test_items_of_one_group_have_similar_factors() -> None:
    groups = [(0, 1, 2)] * 5 + [(3, 4, 5)] * 5
    found = row(matrix_factors(evidence((log(), log(*groups), log())), 0), 0, 2)
    assert found[:3] == pytest.approx([1, 1, 1], abs=0.05)
    assert found[3:6] == pytest.approx([0, 0, 0], abs=0.2)


def test_unit_rows_keep_zero_rows() -> None:
    found = unit_rows_of(sp.csr_array(np.array([[3.0, 4.0], [0.0, 0.0]])))
    assert found.toarray() == pytest.approx(np.array([[0.6, 0.8], [0, 0]]))


def test_one_prior_or_matrix_serves_all_relations() -> None:
    prior = ItemPrior("x", "y", np.arange(14.0)[None])
    cosine = ItemCosine("x", "y", (sp.csr_array(np.eye(14)),))
    assert row(prior, 0, 2).tolist() == ALL.tolist()
    assert row(cosine, 4, 2).tolist() == (ALL == 4).tolist()
