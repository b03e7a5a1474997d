"""Measures on the full catalogue equal those of scikit-learn and of brute force, ties included."""

from dataclasses import dataclass
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

from model.data.edge_table import EdgeTable
from model.evaluation.full_catalogue import (
    MAX_COUNTED,
    CatalogueQueries,
    count_above,
    found_at,
    ndcg,
    rank_catalogue,
    recall_at,
    reciprocal_rank,
)

ITEMS, RELATIONS = 12, 3


@dataclass(frozen=True)
class Matrix:
    """Scorer that reads its scores from an array `[relations, items, items]`."""

    values: ndarray

    def scores(self, items: ndarray, relation: int, candidates: ndarray) -> ndarray:
        return np.asarray(self.values[relation][items][:, candidates])


def random_queries(rng: np.random.Generator, catalogue: int = ITEMS, edges: int = 30) -> CatalogueQueries:
    a, b = rng.integers(0, ITEMS, edges), rng.integers(0, catalogue, edges)
    triples = np.unique(np.column_stack([a, b, rng.integers(0, RELATIONS, edges)])[a != b], axis=0)
    return CatalogueQueries.of(EdgeTable(*triples.T), np.arange(catalogue), 999, rng)


def matrix(rng: np.random.Generator, values: int) -> Matrix:
    """Return random scores with only a few different values, so that many tie."""
    return Matrix(rng.integers(0, values, (RELATIONS, ITEMS, ITEMS)) / values)


def candidates_of(queries: CatalogueQueries, scorer: Matrix, query: int) -> tuple[ndarray, ndarray]:
    """Return the scores of all candidates but the query item, and whether they are relevant."""
    item, relation = queries.item[query], queries.relation[query]
    others = queries.catalogue[queries.catalogue != item]
    own = queries.partner[queries.starts[query] : queries.starts[query + 1]]
    return scorer.values[relation, item, others], np.isin(others, own)


def orders(scores: ndarray, relevant: ndarray) -> list[tuple[bool, ...]]:
    """Return the relevance along every order of the candidates that sorts the scores."""
    return [
        tuple(bool(relevant[place]) for place in order)
        for order in permutations(range(len(scores)))
        if all(scores[one] >= scores[other] for one, other in pairwise(order))
    ]


@pytest.mark.parametrize("seed", range(4))
def test_ndcg_equals_that_of_scikit_learn_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, scorer = random_queries(rng), matrix(rng, 5)
    found = ndcg(rank_catalogue(scorer, queries), queries)
    for query in range(len(queries)):
        scores, relevant = candidates_of(queries, scorer, query)
        assert found[query] == pytest.approx(ndcg_score([relevant], [scores], k=10))


@pytest.mark.parametrize("seed", range(4))
def test_reciprocal_rank_equals_that_of_scikit_learn_for_one_partner(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = np.array([(n, (n + 1 + seed) % ITEMS, n % RELATIONS) for n in range(ITEMS)])
    queries = CatalogueQueries.of(EdgeTable(*pairs.T), np.arange(ITEMS), 999, rng)
    scorer = Matrix(rng.normal(size=(RELATIONS, ITEMS, ITEMS)))
    found = reciprocal_rank(rank_catalogue(scorer, queries), queries)
    for query in range(len(queries)):
        scores, relevant = candidates_of(queries, scorer, query)
        assert found[query] == pytest.approx(label_ranking_average_precision_score([relevant], [scores]))


@given(st.integers(0, 10_000), st.integers(1, 3))
def test_measures_equal_the_mean_over_all_orders_of_tied_candidates(seed: int, values: int) -> None:
    rng = np.random.default_rng(seed)
    triples = np.unique(rng.integers(0, (6, 6, 1), (4, 3)), axis=0)
    triples = triples[triples[:, 0] != triples[:, 1]]
    if not len(triples):
        return
    queries = CatalogueQueries.of(EdgeTable(*triples.T), np.arange(6), 999, rng)
    scorer = matrix(rng, values)
    places = rank_catalogue(scorer, queries)
    mrr, recall = reciprocal_rank(places, queries), recall_at(2, places, queries)
    for query in range(len(queries)):
        found = orders(*candidates_of(queries, scorer, query))
        assert mrr[query] == pytest.approx(np.mean([1 / (1 + one.index(True)) for one in found]))
        assert recall[query] == pytest.approx(np.mean([sum(one[:2]) / sum(one) for one in found]))


def test_blocks_do_not_change_the_places() -> None:
    rng = np.random.default_rng(5)
    queries, scorer = random_queries(rng), matrix(rng, 9)
    whole, small = rank_catalogue(scorer, queries), rank_catalogue(scorer, queries, block_scores=25)
    for name in ("better", "equal", "tied"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(small, name))


def test_constant_scores_are_at_chance_level() -> None:
    rng = np.random.default_rng(6)
    queries = random_queries(rng)
    places = rank_catalogue(Matrix(np.zeros((RELATIONS, ITEMS, ITEMS))), queries)
    assert found_at(5, places) == pytest.approx(5 / (ITEMS - 1))


def test_scores_that_are_not_numbers_rank_last() -> None:
    queries = CatalogueQueries.of(
        EdgeTable(np.array([0]), np.array([1]), np.array([0])), np.arange(4), 9, np.random.default_rng(0)
    )
    values = np.zeros((1, 4, 4))
    values[0, 0, 1] = np.nan
    assert found_at(2, rank_catalogue(Matrix(values), queries)).tolist() == [0.0]


def test_query_items_outside_the_catalogue_compete_with_all_candidates() -> None:
    edges = EdgeTable(np.array([9, 2]), np.array([1, 1]), np.array([0, 0]))
    queries = CatalogueQueries.of(edges, np.arange(4), 9, np.random.default_rng(0))
    places = rank_catalogue(Matrix(np.zeros((1, ITEMS, ITEMS))), queries)
    assert dict(zip(queries.item.tolist(), places.equal.tolist(), strict=True)) == {2: 3, 9: 4}


@given(st.integers(0, 10_000), st.integers(1, 8))
def test_a_sample_of_queries_keeps_all_their_partners(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, ITEMS, 20), rng.integers(0, ITEMS, 20)
    triples = np.unique(np.column_stack([a, b, rng.integers(0, RELATIONS, 20)])[a != b], axis=0)
    queries = CatalogueQueries.of(EdgeTable(*triples.T), np.arange(ITEMS), most, rng)
    assert len(queries) == min(most, len(np.unique(triples[:, [0, 2]], axis=0)))
    for query, (item, relation) in enumerate(zip(queries.item, queries.relation, strict=True)):
        own = triples[(triples[:, 0] == item) & (triples[:, 2] == relation), 1]
        got = queries.partner[queries.starts[query] : queries.starts[query + 1]]
        assert sorted(got.tolist()) == sorted(own.tolist())
    assert queries.query.tolist() == np.repeat(np.arange(len(queries)), np.diff(queries.starts)).tolist()


@given(st.integers(0, 10_000))
def test_counting_and_sorting_agree(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 20, 50).astype(np.float32)
    limits = rng.integers(-1, 21, MAX_COUNTED + 1).astype(np.float32)
    sorted_counts, counts = count_above(scores, limits), count_above(scores, limits[:-1])
    assert sorted_counts.tolist() == [int((scores > limit).sum()) for limit in limits]
    assert sorted_counts[:-1].tolist() == counts.tolist()
