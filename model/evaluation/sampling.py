"""Evaluation samples: retrieval queries and validity claims, drawn at random from edges (section 4.3).

Besides the paper's queries there are harder ones (`sample_hard_queries`) and queries from training items
(`sample_training_queries`). Items and relations are given by position. The evaluation draws its samples from the test
split. Training draws queries from the validation split, claims for the validity head from the training split, and
claims for the calibration from the validation split.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
    """Retrieval queries; column 0 of `candidates` is the true partner, the others are random negatives.

    Hard queries may have fewer negatives; the columns that remain contain -1.
    """

    item: Int[ndarray, " queries"]
    relation: Int[ndarray, " queries"]
    candidates: Int[ndarray, "queries candidates"]

    @classmethod
    def joined(cls, parts: Sequence["Queries"]) -> "Queries":
        """Concatenate queries with the same number of candidates."""
        return cls(
            np.concatenate([part.item for part in parts]),
            np.concatenate([part.relation for part in parts]),
            np.concatenate([part.candidates for part in parts]),
        )


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
            fewest = len(pool) - max(len(partners[a, r] | {a}) for a, _, r in _triples(asked))
            candidate = f"Give `rcml evaluate` --candidates {fewest + 1}, or run" if fewest > 0 else "Run"
            raise InputError(
                f"Only {fewest} items can serve as negatives, but {candidates - 1} are needed. {candidate} `rcml "
                "prepare` with a larger --test-share, such as 0.4, or with more items."
            )
        drawn[query] = [partner, *rng.choice(allowed, size=candidates - 1, replace=False)]
    return Queries(asked.a, asked.relation, drawn)


MIN_NEGATIVES = 10
"""Minimum number of negatives of a query that may have fewer than requested: chance of Hit@5 is then 5/11."""


def sample_hard_queries(queries: Queries, edges: EdgeTable, rng: np.random.Generator) -> Queries:
    """Replace the negatives of `queries` with hard ones: items that have a partner under the same relation.

    A random negative often has no partner under the relation at all, so it is enough to know which items belong to the
    relation. Hard negatives belong to it too. If a query has too few, all of them are used; a query with fewer than
    `MIN_NEGATIVES` is left out. `edges` are the edges that `queries` were drawn from.
    """
    both = edges.both_ways()
    pools = {relation: np.unique(both.a[both.relation == relation]) for relation in _distinct(both.relation)}
    asked = EdgeTable(queries.item, queries.candidates[:, 0], queries.relation)
    return _with_negatives(asked, pools, _partners(both), queries.candidates.shape[1], rng)


def sample_available_queries(
    edges: EdgeTable, candidates: int, max_queries: int, rng: np.random.Generator
) -> Queries:
    """Draw queries as `sample_queries` does, but with fewer negatives if a small shop does not have enough.

    A query has at least `MIN_NEGATIVES`; one with fewer is left out.
    """
    asked = edges.both_ways()
    pool = np.unique(np.concatenate([edges.a, edges.b]))
    pools = dict.fromkeys(_distinct(asked.relation), pool)
    partners = _partners(asked)
    if len(asked) > max_queries:
        asked = asked.take(np.sort(rng.choice(len(asked), size=max_queries, replace=False)))
    return _with_negatives(asked, pools, partners, candidates, rng)


def sample_training_queries(
    across: EdgeTable, pool: Int[ndarray, " pool"], candidates: int, rng: np.random.Generator
) -> Queries:
    """Draw one query for each edge from a training item (`a`) to a new item (`b`), with negatives from `pool`.

    As in `sample_hard_queries`, a query may have fewer negatives than requested, but at least `MIN_NEGATIVES`.
    """
    pools = dict.fromkeys(_distinct(across.relation), pool)
    return _with_negatives(across, pools, _partners(across), candidates, rng)


def _with_negatives(
    asked: EdgeTable,
    pools: Mapping[int, Int[ndarray, " pool"]],
    partners: Mapping[tuple[int, int], set[int]],
    candidates: int,
    rng: np.random.Generator,
) -> Queries:
    """Draw up to `candidates - 1` negatives for each edge from the pool of its relation; leave out edges with few."""
    drawn = np.full((len(asked), candidates), -1, dtype=np.int64)
    least = min(candidates - 1, MIN_NEGATIVES)
    for query, (item, partner, relation) in enumerate(_triples(asked)):
        pool = pools[relation]
        allowed = pool[~np.isin(pool, [*partners[item, relation], item])]
        count = min(len(allowed), candidates - 1)
        if count >= least:
            drawn[query, 0] = partner
            drawn[query, 1 : 1 + count] = rng.choice(allowed, size=count, replace=False)
    kept = drawn[:, 0] >= 0
    return Queries(asked.a[kept], asked.relation[kept], drawn[kept])


def _distinct(relation: Int[ndarray, " edges"]) -> list[int]:
    return [int(row) for row in np.unique(relation)]


@dataclass(frozen=True)
class LabelledPairs:
    """Claims that a relation holds between two items; `valid` is True for true claims."""

    pairs: EdgeTable
    valid: Bool[ndarray, " claims"]

    @classmethod
    def joined(cls, parts: Sequence["LabelledPairs"]) -> "LabelledPairs":
        """Concatenate claims, the true ones of all parts first."""
        pairs = [part.pairs for part in parts]
        valid = np.concatenate([part.valid for part in parts])
        every = EdgeTable(
            np.concatenate([own.a for own in pairs]),
            np.concatenate([own.b for own in pairs]),
            np.concatenate([own.relation for own in pairs]),
        )
        order = np.argsort(~valid, kind="stable")
        return cls(every.take(order), valid[order])

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
