"""Sampling: no negative of a query is a partner of the query item, and false claims are false."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.edge_table import EdgeTable
from model.embeddings.encoding import Encoding
from model.errors import InputError
from model.evaluation.sampling import (
    MIN_NEGATIVES,
    LabelledPairs,
    Queries,
    sample_hard_queries,
    sample_labelled_pairs,
    sample_queries,
    sample_training_queries,
)
from model.records import Edge, Split

ITEMS, RELATIONS = 30, 4

EDGES = st.lists(
    st.tuples(st.integers(0, ITEMS - 1), st.integers(0, ITEMS - 1), st.integers(1, RELATIONS - 1)).filter(
        lambda edge: edge[0] < edge[1]
    ),
    min_size=1,
    max_size=25,
    unique=True,
)


def table(edges: list[tuple[int, int, int]]) -> EdgeTable:
    return EdgeTable(*np.array(edges, dtype=np.int64).T)


def triples(edges: EdgeTable) -> set[tuple[int, int, int]]:
    return set(zip(edges.a.tolist(), edges.b.tolist(), edges.relation.tolist(), strict=True))


RING = table([(n, (n + 1) % ITEMS, 1 + n % 3) for n in range(ITEMS)])


def drawn(edges: EdgeTable = RING, candidates: int = 6, most: int = 999, seed: int = 0) -> Queries:
    return sample_queries(edges, candidates, most, np.random.default_rng(seed))


def test_edge_table_contains_positions_of_items_and_relations() -> None:
    edges = [Edge("cup", "pan", "tea", 3, 0.5, Split.TEST)]
    found = EdgeTable.of(edges, {"pan": 7, "cup": 2}, {"same-item": 0, "tea": 1})
    assert triples(found) == {(2, 7, 1)}


def test_each_edge_gives_a_query_from_each_end_with_partner_in_column_0() -> None:
    queries = drawn()
    asked = set(
        zip(queries.item.tolist(), queries.candidates[:, 0].tolist(), queries.relation.tolist(), strict=True)
    )
    assert asked == triples(RING) | {(b, a, relation) for a, b, relation in triples(RING)}


@given(EDGES, st.integers(0, 99))
def test_no_negative_is_the_query_item_or_its_partner_under_the_relation(
    edges: list[tuple[int, int, int]], seed: int
) -> None:
    known = set(edges) | {(b, a, relation) for a, b, relation in edges}
    padded = table([*edges, *((n, n + 1, RELATIONS) for n in range(0, ITEMS, 2))])
    queries = drawn(padded, candidates=3, seed=seed)
    for item, relation, candidates in zip(
        queries.item, queries.relation, queries.candidates.tolist(), strict=True
    ):
        assert item not in candidates
        assert len(set(candidates)) == 3
        assert not any((item, negative, relation) in known for negative in candidates[1:])


def test_partner_under_another_relation_can_be_a_negative() -> None:
    edges = table([(0, 1, 1), (0, 2, 2), (1, 2, 3)])
    queries = drawn(edges, candidates=2)
    first = np.flatnonzero((queries.item == 0) & (queries.relation == 1))[0]
    assert queries.candidates[first].tolist() == [1, 2]


def test_items_without_an_edge_are_never_candidates() -> None:
    edges = table([(0, 1, 1), (2, 3, 1), (4, 29, 1)])
    assert set(drawn(edges, candidates=4).candidates.ravel().tolist()) <= {0, 1, 2, 3, 4, 29}


def test_negatives_are_drawn_uniformly() -> None:
    candidates = drawn(
        table([(n, n + 1, 1) for n in range(0, ITEMS, 2)] * 60), candidates=11, most=9999
    ).candidates
    counts = np.bincount(candidates[:, 1:].ravel(), minlength=ITEMS)
    assert counts / counts.mean() == pytest.approx([1.0] * ITEMS, abs=0.15)


def test_seed_determines_the_negatives() -> None:
    first, again, other = (drawn(seed=seed).candidates for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first[:, 0] == other[:, 0]).all()
    assert (first != other).any()


def test_limits_queries_to_a_subset_of_the_edges() -> None:
    queries = drawn(most=7)
    asked = set(
        zip(queries.item.tolist(), queries.candidates[:, 0].tolist(), queries.relation.tolist(), strict=True)
    )
    assert len(asked) == len(queries.item) == 7
    assert asked <= triples(RING.both_ways())


def test_rejects_too_few_negatives_and_states_both_numbers() -> None:
    with pytest.raises(InputError, match="Only 2 items can serve as negatives, but 20 are needed"):
        drawn(table([(0, 1, 1), (2, 3, 1)]), candidates=21)


def hard_of(edges: EdgeTable, candidates: int, seed: int = 0) -> Queries:
    return sample_hard_queries(drawn(edges, candidates), edges, np.random.default_rng(seed))


@given(EDGES, st.integers(0, 99))
def test_hard_negatives_have_a_partner_under_the_relation_but_are_no_partners(
    edges: list[tuple[int, int, int]], seed: int
) -> None:
    padded = table([*edges, *((n, n + 1, RELATIONS) for n in range(0, ITEMS, 2))])
    both = triples(padded) | {(b, a, relation) for a, b, relation in triples(padded)}
    queries = hard_of(padded, 4, seed)
    for item, relation, candidates in zip(
        queries.item.tolist(), queries.relation.tolist(), queries.candidates.tolist(), strict=True
    ):
        partner, *negatives = candidates
        assert (item, partner, relation) in both
        assert len({item, *candidates}) == 5
        for negative in negatives:
            assert (item, negative, relation) not in both
            assert any((negative, other, relation) in both for other in range(ITEMS))


def test_hard_queries_use_the_negatives_that_there_are_but_at_least_ten() -> None:
    # 14 items have a partner under relation 1, so 12 negatives are left; 12 have one under relation 2, so 10 are left.
    # 10 have one under relation 3, which is too few.
    edges = table(
        [(n, n + 1, 1) for n in range(0, 14, 2)]
        + [(n, n + 1, 2) for n in range(0, 12, 2)]
        + [(n, n + 1, 3) for n in range(0, 10, 2)]
        + [(n, n + 1, 0) for n in range(0, ITEMS, 2)]
    )
    queries = hard_of(edges, 21)
    counts = (queries.candidates >= 0).sum(axis=1)
    assert {relation: set(counts[queries.relation == relation].tolist()) for relation in range(4)} == {
        0: {21}, 1: {13}, 2: {11}, 3: set()
    }  # fmt: skip
    assert MIN_NEGATIVES == 10
    assert (queries.candidates[:, :11] >= 0).all()


def test_hard_queries_ask_for_the_same_partners() -> None:
    edges = table([(n, n + 1, 1) for n in range(0, ITEMS, 2)])
    queries, hard = drawn(edges, 6), hard_of(edges, 6)
    assert hard.item.tolist() == queries.item.tolist()
    assert hard.candidates[:, 0].tolist() == queries.candidates[:, 0].tolist()


def test_queries_from_training_items_have_new_candidates_only() -> None:
    across = table([(40, 3, 1), (40, 5, 1), (41, 3, 2), (42, 9, 1)])
    queries = sample_training_queries(across, np.arange(20), 15, np.random.default_rng(0))
    assert queries.item.tolist() == [40, 40, 41, 42]
    assert queries.candidates[:, 0].tolist() == [3, 5, 3, 9]
    assert queries.candidates.max() < 20
    assert not {3, 5} & set(queries.candidates[:2, 1:].ravel().tolist())
    assert all(len(set(row)) == 15 for row in queries.candidates.tolist())


def claims_of(edges: EdgeTable, most: int = 999, seed: int = 0) -> LabelledPairs:
    return sample_labelled_pairs(edges, np.arange(1, RELATIONS), most, np.random.default_rng(seed))


@given(EDGES, st.integers(0, 99))
def test_true_claims_are_edges_and_false_claims_are_not(edges: list[tuple[int, int, int]], seed: int) -> None:
    known = set(edges) | {(b, a, relation) for a, b, relation in edges}
    claims = claims_of(table(edges), seed=seed)
    for claim, valid in zip(
        zip(claims.pairs.a.tolist(), claims.pairs.b.tolist(), claims.pairs.relation.tolist(), strict=True),
        claims.valid,
        strict=True,
    ):
        assert (claim in known) == valid
        assert claim[0] != claim[1]
        assert 1 <= claim[2] < RELATIONS


def test_half_of_the_claims_are_true() -> None:
    assert claims_of(RING).valid.mean() == 0.5
    assert claims_of(RING, most=10).valid.tolist() == [True] * 5 + [False] * 5


def test_half_of_the_false_claims_name_a_wrong_relation_for_a_related_pair() -> None:
    claims = claims_of(RING)
    pairs = {frozenset(edge[:2]) for edge in triples(RING)}
    false = claims.pairs.take(np.flatnonzero(~claims.valid))
    related = [frozenset(pair) in pairs for pair in zip(false.a.tolist(), false.b.tolist(), strict=True)]
    assert sum(related) == pytest.approx(ITEMS / 2, abs=3)  # a random other item can be a partner by chance


def test_vectors_of_a_claim_are_those_under_its_relation() -> None:
    numbers = np.arange(ITEMS * RELATIONS, dtype=np.float32).reshape(ITEMS, RELATIONS, 1)
    claims = LabelledPairs(table([(2, 5, 3)]), np.array([True]))
    judged = claims.vectors(
        Encoding(numbers, -numbers), np.array([[0.0], [10.0], [20.0], [30.0]], np.float32)
    )
    assert [v.item() for v in vars(judged).values()] == [2 * 4 + 3, -(2 * 4 + 3), 5 * 4 + 3, -(5 * 4 + 3), 30]
