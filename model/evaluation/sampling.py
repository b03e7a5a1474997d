"""Evaluation samples: retrieval queries and validity claims, drawn at random from edges (section 4.3).

Items and relations are given by position. The evaluation draws its samples from the test split. Training draws queries
from the validation split, claims for the validity head from the training split, and claims for the calibration from
the validation split.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from model.checkpoint.validity import PairVectors
from model.data.edge_table import EdgeTable
from model.embeddings.encoding import Encoding
from model.errors import InputError


@dataclass(frozen=True)
class Queries:
    """Retrieval queries; column 0 of `candidates` is the true partner, the others are random negatives."""

    item: Int[ndarray, " queries"]
    relation: Int[ndarray, " queries"]
    candidates: Int[ndarray, "queries candidates"]


def sample_queries(edges: EdgeTable, candidates: int, max_queries: int, rng: np.random.Generator) -> Queries:
    """Draw two retrieval queries per edge, one for each of its items as the query item (section 4.3.1).

    The candidates of a query are the other item of the edge and random negatives. If there are more than `max_queries`
    queries, a random subset is kept. Negatives are drawn from all items that have an edge, except the query item and
    its partners under the same relation. Its partners under other relations can be negatives, because the network
    must distinguish the relations.

    Raises:
        InputError: there are too few items for this number of candidates.
    """
    asked = edges.both_ways()
    partners = _partners(asked)
    if len(asked) > max_queries:
        asked = asked.take(np.sort(rng.choice(len(asked), size=max_queries, replace=False)))
    pool = np.unique(np.concatenate([edges.a, edges.b]))
    drawn = np.empty((len(asked), candidates), dtype=np.int64)
    for query, (item, partner, relation) in enumerate(_triples(asked)):
        allowed = np.delete(pool, np.searchsorted(pool, sorted(partners[item, relation] | {item})))
        if len(allowed) < candidates - 1:
            raise InputError(
                f"Only {len(allowed)} items can serve as negatives, but {candidates - 1} are needed. Run "
                "`rcml prepare` with more items, a larger share of held-out items, or looser filters."
            )
        drawn[query] = [partner, *rng.choice(allowed, size=candidates - 1, replace=False)]
    return Queries(asked.a, asked.relation, drawn)


@dataclass(frozen=True)
class LabelledPairs:
    """Claims that a relation holds between two items; `valid` is True for true claims."""

    pairs: EdgeTable
    valid: Bool[ndarray, " claims"]

    def vectors(self, encoding: Encoding, relation_vectors: ndarray) -> PairVectors:
        """Look up the vectors of each claim for the validity head."""
        a, b, relation = self.pairs.a, self.pairs.b, self.pairs.relation
        return PairVectors(
            text_a=encoding.text[a, relation],
            image_a=encoding.image[a, relation],
            text_b=encoding.text[b, relation],
            image_b=encoding.image[b, relation],
            relation=relation_vectors[relation],
        )


def sample_labelled_pairs(
    edges: EdgeTable, relations: Int[ndarray, " known"], max_claims: int, rng: np.random.Generator
) -> LabelledPairs:
    """Draw true claims and about as many false claims (section 4.3.3).

    About half of the false claims replace one item of a true claim with a random item that is not related to the other
    item under this relation. The rest replace the relation with one of `relations` under which the two items are not
    related.
    """
    order = rng.permutation(len(edges))[: max(1, max_claims // 2)]
    true = edges.take(order)
    partners = _partners(edges.both_ways())
    pool = np.unique(np.concatenate([edges.a, edges.b]))
    false: list[tuple[int, int, int]] = []
    for number, (a, b, relation) in enumerate(_triples(true)):
        others = [int(other) for other in relations if b not in partners[a, int(other)]]
        if number % 2 and others:
            false.append((a, b, int(rng.choice(others))))
        else:
            unrelated = np.delete(pool, np.searchsorted(pool, sorted(partners[a, relation] | {a})))
            if len(unrelated):
                false.append((a, int(rng.choice(unrelated)), relation))
    columns = np.array(false, dtype=np.int64).reshape(-1, 3).T
    pairs = EdgeTable(
        np.concatenate([true.a, columns[0]]),
        np.concatenate([true.b, columns[1]]),
        np.concatenate([true.relation, columns[2]]),
    )
    return LabelledPairs(pairs, np.arange(len(pairs)) < len(true))


def _triples(edges: EdgeTable) -> Iterator[tuple[int, int, int]]:
    return zip(edges.a.tolist(), edges.b.tolist(), edges.relation.tolist(), strict=True)


def _partners(edges: EdgeTable) -> Mapping[tuple[int, int], set[int]]:
    """Map each (item, relation) to the partners of the item. `edges` must contain both directions."""
    partners: dict[tuple[int, int], set[int]] = defaultdict(set)
    for item, partner, relation in _triples(edges):
        partners[item, relation].add(partner)
    return partners
