"""The figures of the paper's three tasks, as pure functions of vectors and questions (NumPy, no torch).

Ties are worth their expectation: a network that scores all candidates alike earns exactly chance.
"""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from .encoding import Encoding
from .questions import EdgeTable, Queries
from .records import Similarity

TIE = 1e-5
"""Cosines closer than this are equal: float32 rounding must not decide between candidates."""


def hit_at(k: int, scores: Float[ndarray, "queries candidates"], truth: ndarray) -> Float[ndarray, "queries"]:
    """Chance in [0, 1] that the candidate in column `truth` is among the `k` best when ties fall at random."""
    true = np.take_along_axis(scores, truth[:, None], axis=1)
    better = (scores > true + TIE).sum(axis=1)
    equal = (np.abs(scores - true) <= TIE).sum(axis=1)  # the true one included
    return np.where(equal, np.clip((k - better) / np.maximum(equal, 1), 0.0, 1.0), 0.0)


def retrieval_hits(
    vectors: Encoding, queries: Queries, similarity: Similarity, k: int = 5
) -> Float[ndarray, "queries"]:
    """Hit@k of each query under `similarity` (section 4.3.1)."""
    query_view, target_view = (vectors.view(view) for view in similarity.views)
    query = query_view[queries.item, queries.relation]
    target = target_view[queries.candidates, queries.relation[:, None]]
    scores = np.einsum("qd,qcd->qc", query, target)
    return hit_at(k, scores, np.zeros(len(scores), dtype=np.int64))


def relation_type_hits(
    vectors: Encoding, edges: EdgeTable, similarity: Similarity, relations: Int[ndarray, "known"], k: int = 3
) -> Float[ndarray, "edges"]:
    """Top-k accuracy of each edge: is its relation among the k of `relations` that score best (4.3.2)?"""
    a_view, b_view = (vectors.view(view)[:, relations] for view in similarity.views)
    scores = np.einsum("erd,erd->er", a_view[edges.a], b_view[edges.b])
    return hit_at(k, scores, np.searchsorted(relations, edges.relation))


def interval(
    values: Float[ndarray, "values"],
    cluster: Int[ndarray, "values"],
    rng: np.random.Generator,
    draws: int = 1000,
) -> tuple[float, float]:
    """95 % bootstrap interval of the mean; whole clusters are drawn, since one item asks many questions."""
    _, index = np.unique(cluster, return_inverse=True)
    totals, sizes = np.bincount(index, weights=values), np.bincount(index)
    picks = rng.integers(0, len(totals), size=(draws, len(totals)))
    means = totals[picks].sum(axis=1) / sizes[picks].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
