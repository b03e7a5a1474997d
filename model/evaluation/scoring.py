"""Scores of candidates for queries: the only place that turns vectors of a network into scores.

Items are given by their position in the evaluation set: first the items of the catalogue, which can be candidates, then
training items, which can only be query items.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, Float32, Int
from numpy import ndarray

from model.embeddings.encoding import Encoding, average
from model.similarity import Similarity, View

from .sampling import Queries

MAX_BLOCK_SCORES = 1 << 24
"""Maximum number of scores of the whole catalogue that are computed at a time (64 MB in float32)."""

MAX_BLOCK_PAIRS = 1 << 17
"""Maximum number of scores computed at a time if each query has its own candidates, whose vectors are copied."""


class Scorer(Protocol):
    """Anything that ranks candidates: a network, or a baseline without one."""

    def scores(
        self, items: Int[ndarray, " queries"], relation: int, candidates: Int[ndarray, "..."]
    ) -> Float[ndarray, "queries candidates"]:
        """Score candidates for query items under one relation.

        `candidates` is either `[candidates]`, the same for all queries, or `[queries, candidates]`. If a scorer cannot
        tell candidates apart, it gives them the same score, and a tie counts as its expected value.
        """
        ...


@dataclass(frozen=True)
class NetworkScorer:
    """Scores of a network: the cosine of the two vectors under the relation, which `similarity` selects.

    `training` encodes the training items, whose positions follow those of the items in `catalogue`.
    """

    catalogue: Encoding
    similarity: Similarity
    training: Encoding | None = None

    def scores(
        self, items: Int[ndarray, " queries"], relation: int, candidates: Int[ndarray, "..."]
    ) -> Float32[ndarray, "queries candidates"]:
        """Score candidates for query items under one relation; see `Scorer`."""
        query_view, target_view = self.similarity.views
        query = self._queries(query_view, items, relation)
        target = _vectors(self.catalogue, target_view, candidates, relation)
        if candidates.ndim == 1:
            return np.asarray(query @ target.T)
        return np.asarray(np.einsum("qd,qcd->qc", query, target))

    def _queries(
        self, view: View, items: Int[ndarray, " queries"], relation: int
    ) -> Float32[ndarray, "queries dim"]:
        size = len(self.catalogue.text)
        new = items < size
        if self.training is None or new.all():
            return _vectors(self.catalogue, view, items, relation)
        found = np.empty((len(items), self.catalogue.text.shape[-1]), np.float32)
        found[new] = _vectors(self.catalogue, view, items[new], relation)
        found[~new] = _vectors(self.training, view, items[~new] - size, relation)
        return found


@dataclass(frozen=True)
class PlacedScorer:
    """Scorer of items that are given by other numbers: `rows` maps positions to the numbers that `inner` uses."""

    inner: Scorer
    rows: Int[ndarray, " positions"]

    def scores(
        self, items: Int[ndarray, " queries"], relation: int, candidates: Int[ndarray, "..."]
    ) -> Float[ndarray, "queries candidates"]:
        """Score candidates for query items under one relation; see `Scorer`."""
        return self.inner.scores(self.rows[items], relation, self.rows[candidates])


def _vectors(
    encoding: Encoding, view: View, rows: Int[ndarray, "*any"], relation: int
) -> Float32[ndarray, "*any dim"]:
    """Look up the vectors of `rows` only, because the average of all items would need as much memory again."""
    if view is View.TEXT:
        return np.asarray(encoding.text[rows, relation])
    if view is View.IMAGE:
        return np.asarray(encoding.image[rows, relation])
    return average(encoding.text[rows, relation], encoding.image[rows, relation], encoding.text_share)


def candidate_scores(scorer: Scorer, queries: Queries) -> Float32[ndarray, "queries candidates"]:
    """Score the candidates of each query; a missing candidate (-1) scores minus infinity."""
    scores = np.empty(queries.candidates.shape, np.float32)
    for relation, rows in blocks(queries.relation, queries.candidates.shape[1], MAX_BLOCK_PAIRS):
        scores[rows] = scorer.scores(queries.item[rows], relation, queries.candidates[rows])
    scores[queries.candidates < 0] = -np.inf
    return scores


def blocks(
    relation: Int[ndarray, " queries"], candidates: int, most: int
) -> Iterator[tuple[int, Int[ndarray, " block"]]]:
    """Divide queries into blocks of one relation with at most `most` scores; yield the relation and the rows."""
    size = max(1, most // candidates)
    for row in np.unique(relation).tolist():
        rows = np.flatnonzero(relation == row)
        for start in range(0, len(rows), size):
            yield row, rows[start : start + size]
