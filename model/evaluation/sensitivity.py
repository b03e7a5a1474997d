"""Relation sensitivity: how much the ten best candidates of an item change with the relation.

Both the answers and the true partners are compared in the same way, with the Jaccard overlap |A and B| / |A or B| of
two sets: of the ten best candidates under two relations, and of the partners under the same two relations. If the
answers overlap far more than the partners, the scorer largely ignores the relation.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from numpy import ndarray

from model.data.edge_table import EdgeTable

from .scoring import MAX_BLOCK_SCORES, Scorer, blocks

BEST = 10
"""Number of best candidates that are compared."""


@dataclass(frozen=True)
class RelationPairs:
    """Pairs of relations under which the answers for an item are compared.

    Every item in `items` is compared under all pairs of `relations`: `first` and `second` are positions in `relations`.
    `related[i, p]` says whether item i has partners under both relations of pair p, and `truth` contains the overlap of
    these partners (0 if it has none).
    """

    items: Int[ndarray, " items"]
    relations: Int[ndarray, " relations"]
    first: Int[ndarray, " pairs"]
    second: Int[ndarray, " pairs"]
    related: Bool[ndarray, "items pairs"]
    truth: Float[ndarray, "items pairs"]

    @classmethod
    def of(
        cls,
        edges: EdgeTable,
        items: Int[ndarray, " items"],
        relations: Int[ndarray, " relations"],
    ) -> "RelationPairs":
        """List all pairs of `relations` for `items`, with the overlap of their partners in `edges`."""
        both = edges.both_ways()
        partners: dict[tuple[int, int], set[int]] = {}
        for item, partner, relation in zip(
            both.a.tolist(), both.b.tolist(), both.relation.tolist(), strict=True
        ):
            partners.setdefault((item, relation), set()).add(partner)
        pairs = list(combinations(range(len(relations)), 2))
        related = np.zeros((len(items), len(pairs)), dtype=bool)
        truth = np.zeros((len(items), len(pairs)))
        for row, item in enumerate(items.tolist()):
            own = [partners.get((item, relation), set()) for relation in relations.tolist()]
            for pair, (one, other) in enumerate(pairs):
                if own[one] and own[other]:
                    related[row, pair] = True
                    truth[row, pair] = len(own[one] & own[other]) / len(own[one] | own[other])
        first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        return cls(items, relations, first, second, related, truth)


def answer_overlap(
    scorer: Scorer,
    pairs: RelationPairs,
    catalogue: Int[ndarray, " candidates"],
    block_scores: int = MAX_BLOCK_SCORES,
) -> Float[ndarray, "items pairs"]:
    """Compute the overlap of the `BEST` best candidates of each item under each pair of relations.

    The item itself is no candidate. If there are fewer candidates, all of them are compared.
    """
    count = min(BEST, len(catalogue) - 1)
    best = np.empty((len(pairs.items), len(pairs.relations), count), dtype=np.int64)
    for place, relation in enumerate(pairs.relations.tolist()):
        for _, rows in blocks(np.zeros(len(pairs.items)), len(catalogue), block_scores):
            scores = np.array(scorer.scores(pairs.items[rows], relation, catalogue), dtype=np.float32)
            scores[pairs.items[rows, None] == catalogue] = -np.inf
            best[rows, place] = _best(scores, count)
    overlaps = np.empty((len(pairs.items), len(pairs.first)))
    for pair, (first, second) in enumerate(zip(pairs.first, pairs.second, strict=True)):
        overlaps[:, pair] = jaccard(best[:, first], best[:, second])
    return overlaps


def _best(scores: Float32[ndarray, "rows candidates"], count: int) -> Int[ndarray, "rows count"]:
    """Return the `count` best candidates of each row; the first of equal candidates come first."""
    last = np.partition(scores, -count, axis=1)[:, -count]
    found = np.empty((len(scores), count), dtype=np.int64)
    for row, (own, least) in enumerate(zip(scores, last, strict=True)):
        better = np.flatnonzero(own > least)
        found[row] = np.append(better, np.flatnonzero(own == least)[: count - len(better)])
    return found


def jaccard(first: Int[ndarray, "rows k"], second: Int[ndarray, "rows k"]) -> Float[ndarray, " rows"]:
    """Compute the Jaccard overlap of two lists of `k` different candidates in each row."""
    common = (first[:, :, None] == second[:, None, :]).sum(axis=(1, 2))
    return np.asarray(common / (2 * first.shape[1] - common))
