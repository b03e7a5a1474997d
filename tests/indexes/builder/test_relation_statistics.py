"""Numbers of users and pairs of the relations of an index, and the examples of pairs."""

from dataclasses import replace
from pathlib import Path

import pytest

from indexes.builder.relation_statistics import SAMPLE_PAIRS, indexed_relations
from indexes.storage.relation_table import IndexedRelation, SamplePair, load_relations, save_relations
from model.data.prepared_data import Prepared
from model.records import INTRA_RELATION, Edge, Relation, Split
from tests.model.planted import prepared_of, two_camps

BOOKS = Relation("books", "Readers.", name="Books")


@pytest.fixture(scope="module")
def camps(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepared_of(two_camps(tmp_path_factory.mktemp("camps")))


def edges(*npmi: float) -> tuple[Edge, ...]:
    return tuple(
        Edge("a", f"b{number}", "books", number + 1, one, Split.TRAIN) for number, one in enumerate(npmi)
    )


def test_counts_users_pairs_and_items_of_a_log(camps: Prepared) -> None:
    intra, books, pans = indexed_relations(camps.relations, camps)
    assert intra == IndexedRelation(INTRA_RELATION, None)
    assert (books.users, pans.users) == (camps.users()["books"], camps.users()["pans"])
    assert books.pairs == sum(edge.relation_id == "books" for edge in camps.edges)
    for pair in books.sample_pairs:
        assert any(
            (edge.item_a, edge.item_b, edge.support) == (pair.item_a, pair.item_b, pair.support)
            for edge in camps.edges
        )


@pytest.mark.parametrize(
    ("npmi", "chosen"),
    [
        ((), ()),
        ((0.5,), (0,)),
        ((0.1, 0.9), (1, 0)),
        ((0.1, 0.5, 0.9), (2, 1, 0)),
        ((0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1), (1, 4, 7)),
    ],
)
def test_samples_are_the_middles_of_the_thirds(
    camps: Prepared, npmi: tuple[float, ...], chosen: tuple[int, ...]
) -> None:
    [books] = indexed_relations([BOOKS], replace(camps, edges=edges(*npmi)))
    assert books.sample_pairs == tuple(SamplePair("a", f"b{number}", number + 1) for number in chosen)
    assert len(books.sample_pairs) <= SAMPLE_PAIRS


def test_relation_that_the_data_does_not_have_has_no_pairs(camps: Prepared) -> None:
    [other] = indexed_relations([Relation("other", "Others.")], camps)
    assert other == IndexedRelation(Relation("other", "Others."), 0, paired_items=0)


def test_relations_are_loaded_as_saved(tmp_path: Path, camps: Prepared) -> None:
    found = tuple(indexed_relations(camps.relations, camps))
    save_relations(tmp_path, found)
    assert load_relations(tmp_path) == found
