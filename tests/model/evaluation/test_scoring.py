"""Scores of a network are cosines of vectors under the relation, also for query items outside the catalogue."""

import numpy as np
import pytest
from numpy import ndarray

from model.embeddings.encoding import Encoding
from model.evaluation.sampling import Queries
from model.evaluation.scoring import NetworkScorer, PlacedScorer, blocks, candidate_scores
from model.similarity import Similarity

NEW, TRAINING, RELATIONS, DIM = 6, 3, 2, 4


def encoding(items: int, seed: int) -> Encoding:
    rng = np.random.default_rng(seed)

    def unit() -> ndarray:
        vectors = rng.normal(size=(items, RELATIONS, DIM)).astype(np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))

    return Encoding(unit(), unit())


CATALOGUE, OTHERS = encoding(NEW, 0), encoding(TRAINING, 1)


@pytest.mark.parametrize("similarity", Similarity)
def test_scores_are_cosines_of_the_two_views(similarity: Similarity) -> None:
    scorer = NetworkScorer(CATALOGUE, similarity, OTHERS)
    query_view, target_view = similarity.views
    queries = np.concatenate([CATALOGUE.view(query_view), OTHERS.view(query_view)])
    targets = CATALOGUE.view(target_view)
    items = np.array([7, 0, 8, 5])
    for relation in range(RELATIONS):
        expected = queries[items, relation] @ targets[:, relation].T
        assert scorer.scores(items, relation, np.arange(NEW)) == pytest.approx(expected, abs=1e-6)
        own = np.array([[1, 2], [3, 4], [0, 5], [2, 2]])
        assert scorer.scores(items, relation, own) == pytest.approx(
            np.take_along_axis(expected, own, axis=1), abs=1e-6
        )


def test_missing_candidates_score_minus_infinity() -> None:
    queries = Queries(np.array([0, 7]), np.array([0, 1]), np.array([[1, 2, -1], [3, -1, -1]]))
    scores = candidate_scores(NetworkScorer(CATALOGUE, Similarity.AVG, OTHERS), queries)
    assert np.isneginf(scores).tolist() == [[False, False, True], [False, True, True]]
    assert scores[1, 0] == pytest.approx(float(OTHERS.average[1, 1] @ CATALOGUE.average[3, 1]), abs=1e-6)


def test_positions_are_translated_for_a_baseline() -> None:
    inner = NetworkScorer(CATALOGUE, Similarity.TT)
    placed = PlacedScorer(inner, np.array([5, 0, 3]))
    assert placed.scores(np.array([0]), 1, np.array([1, 2])) == pytest.approx(
        inner.scores(np.array([5]), 1, np.array([0, 3]))
    )


def test_blocks_cover_every_query_once_and_have_one_relation() -> None:
    relation = np.array([2, 0, 2, 2, 0, 2, 2])
    found = list(blocks(relation, candidates=10, most=25))
    assert [row for row, _ in found] == [0, 2, 2, 2]
    assert all(len(rows) <= 2 and (relation[rows] == row).all() for row, rows in found)
    assert sorted(np.concatenate([rows for _, rows in found]).tolist()) == list(range(7))


def test_block_has_at_least_one_query() -> None:
    assert len(list(blocks(np.zeros(3, dtype=np.int64), candidates=100, most=25))) == 3
