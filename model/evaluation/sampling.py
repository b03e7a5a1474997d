"""Questions to a network: retrieval queries and validity claims, drawn from edges by a seed (section 4.3).

Positions stand for items and relations throughout. Training draws from its own part for validation and for
the validity head; evaluation draws from the test part.
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
    """Retrieval questions; column 0 of `candidates` is the true partner, the rest are random negatives."""

    item: Int[ndarray, " queries"]
    relation: Int[ndarray, " queries"]
    candidates: Int[ndarray, "queries candidates"]


def sample_queries(edges: EdgeTable, candidates: int, max_queries: int, rng: np.random.Generator) -> Queries:
    """Ask for each edge from either end, among `candidates`: its partner and random others (section 4.3.1).

    Negatives are drawn from the items that have an edge, leaving out the query itself and its other partners
    under the same relation. Partners under another relation stay in: telling them apart is the task.

    Raises:
        InputError: too few items for that many candidates.
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
                f"Only {len(allowed)} items can serve as negatives where {candidates - 1} are needed. "
                "Give `rcml prepare` more items, let it hold out more of them, or loosen its filters."
            )
        drawn[query] = [partner, *rng.choice(allowed, size=candidates - 1, replace=False)]
    return Queries(asked.a, asked.relation, drawn)


@dataclass(frozen=True)
class LabelledPairs:
    """Statements "this relation holds between these items" and whether each is `valid`."""

    pairs: EdgeTable
    valid: Bool[ndarray, " claims"]

    def vectors(self, encoding: Encoding, relation_vectors: ndarray) -> PairVectors:
        """Look up the vectors that each claim is judged by."""
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
    """Draw as many false claims as true ones (section 4.3.3).

    Of the false ones, half pair the item with a random other under the same relation, half keep a related
    pair and name a relation of `relations` that it does not have.
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
            strangers = np.delete(pool, np.searchsorted(pool, sorted(partners[a, relation] | {a})))
            if len(strangers):
                false.append((a, int(rng.choice(strangers)), relation))
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
    """All partners of an item under a relation, by both positions; `edges` are as asked from either end."""
    partners: dict[tuple[int, int], set[int]] = defaultdict(set)
    for item, partner, relation in _triples(edges):
        partners[item, relation].add(partner)
    return partners
