"""An open index, compared with a few lines of NumPy over the same vectors."""

import gc
import os
import shutil
from pathlib import Path

import pytest

from indexes.index import Index
from indexes.journal.change import Change
from indexes.vectors.gpu_vectors import Cards
from model.embeddings.encoder_protocol import ItemEncoder
from model.errors import ArtifactError, MismatchError, ReadOnlyError, UnknownItemError, UnknownRelationError
from model.similarity import Similarity, View
from tests.rights import closed

from .changes import SAILORS, Expected, copied, made
from .fakes import ITEMS, RELATIONS, FakeEncoder, FakeShop, ids, write_checkpoint
from .vectors.stand_in_card import StandInCard

RELATION_IDS = [relation.relation_id for relation in RELATIONS]


@pytest.mark.parametrize("similarity", Similarity)
@pytest.mark.parametrize("relation_id", RELATION_IDS)
def test_neighbours_match_exhaustive_comparison(
    index: Index, shop: FakeShop, relation_id: str, similarity: Similarity
) -> None:
    for item_id in ids():
        hits = index.reader().neighbours(item_id, relation_id, similarity, 100)
        expected = shop.ranking(item_id, relation_id, similarity)
        assert [hit.item.item_id for hit in hits] == [other for other, _ in expected]
        assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected], abs=1e-5)


def test_next_generations_take_the_place_of_the_previous_one_on_a_gpu(
    shop: FakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.vectors.gpu_vectors.MIN_CARD_ITEMS", 0)
    card, expected = StandInCard(), Expected(shop)
    index = Index.open(copied(shop, tmp_path), cards=Cards([card], 1.0))
    for turn in range(3):
        used, calls = card.used, len(card.asked)
        changes = [made(f"new-{turn}-{number}", number) for number in range(5)]
        index.apply(changes)
        expected.apply(*changes)
        index.compact()
        expected.check(index)
        assert index.snapshot.generation.vectors.device.startswith("vectors of 4 relations on cuda:0")
        assert len(card.asked) > calls
        gc.collect()
        assert card.used == used * (len(ITEMS) + 5 * turn + 5) / (len(ITEMS) + 5 * turn)
    index.close()
    assert card.used == 0


@pytest.mark.parametrize("k", [1, 3, 11, 12, 1000])
def test_returns_at_most_k_items_without_query_item(index: Index, k: int) -> None:
    hits = index.reader().neighbours("twin-2", "gardeners", Similarity.AVG, k)
    assert len(hits) == min(k, len(ITEMS) - 1)
    assert "twin-2" not in [hit.item.item_id for hit in hits]


def test_finds_identical_items_first_in_catalogue_order(index: Index) -> None:
    hits = index.reader().neighbours("twin-2", "same-item", Similarity.TT, 2)
    assert [hit.item.item_id for hit in hits] == ["twin-1", "twin-3"]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 1.0], abs=1e-3)


def test_encoded_text_finds_the_item_it_describes(index: Index) -> None:
    encoder: ItemEncoder = FakeEncoder()
    query = encoder.encode_texts([ITEMS[7].text])[0, index.reader().position("new-parents")]
    best = index.reader().search(query, "new-parents", View.TEXT, 3)[0]
    assert best.item == ITEMS[7]
    assert best.score == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("similarity", Similarity)
def test_ranks_relations_of_pair_by_cosine(index: Index, shop: FakeShop, similarity: Similarity) -> None:
    expected = {
        relation_id: shop.cosine("bib", "cot", relation_id, similarity) for relation_id in RELATION_IDS[1:]
    }
    scores = index.reader().relation_scores("bib", "cot", similarity)
    assert {scored.relation.relation_id: scored.score for scored in scores} == pytest.approx(
        expected, abs=1e-5
    )
    assert [scored.score for scored in scores] == sorted((scored.score for scored in scores), reverse=True)


def test_relation_scores_omit_intra_sample_relation(index: Index) -> None:
    scores = index.reader().relation_scores("bib", "cot", Similarity.AVG)
    assert "same-item" not in [scored.relation.relation_id for scored in scores]


@pytest.mark.parametrize("relation_id", RELATION_IDS[1:])
def test_validity_is_probability_from_head(index: Index, shop: FakeShop, relation_id: str) -> None:
    expected = shop.probability("bib", "cot", relation_id)
    assert index.reader().validity("bib", "cot", relation_id).probability == pytest.approx(expected, abs=1e-6)
    assert index.reader().validity("cot", "bib", relation_id).probability == pytest.approx(expected, abs=1e-6)


def test_unknown_relation_error_lists_known_relations(index: Index) -> None:
    with pytest.raises(UnknownRelationError, match=r"'sailors'.*gardeners.*new-parents"):
        index.reader().neighbours("bib", "sailors", Similarity.AVG, 3)


def test_error_names_unknown_item(index: Index) -> None:
    with pytest.raises(UnknownItemError, match="'unicorn'"):
        index.reader().relation_scores("bib", "unicorn", Similarity.AVG)


def test_error_for_other_checkpoint_names_both_digests_and_remedy(shop: FakeShop, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "other", seed=3)
    with pytest.raises(
        MismatchError, match=r"checkpoint [0-9a-f]{12}, .* is [0-9a-f]{12}\. Run `rcml index build`"
    ):
        Index.open(shop.index, tmp_path / "other")


def test_accepts_same_checkpoint_at_another_path(shop: FakeShop, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "copy")
    Index.open(shop.index, tmp_path / "copy").close()


def test_rejects_folder_that_is_not_an_index(shop: FakeShop) -> None:
    with pytest.raises(ArtifactError, match="is a checkpoint, but an index is required"):
        Index.open(shop.checkpoint)


@pytest.mark.parametrize("name", [b"caf\xe9", b"50% off?#1"])
def test_index_in_a_folder_of_any_name_answers_and_changes(
    name: bytes, shop: FakeShop, tmp_path: Path
) -> None:
    path = tmp_path / os.fsdecode(name)
    shutil.copytree(shop.index, path)
    index = Index.open(path, shop.checkpoint)
    hits = index.reader().neighbours("twin-2", "same-item", Similarity.TT, 2)
    assert [hit.item.item_id for hit in hits] == ["twin-1", "twin-3"]
    index.apply([Change("twin-1")])
    index.compact()
    assert "twin-1" not in index.snapshot
    index.close()


def test_changed_index_that_may_only_be_read_answers_and_refuses_changes(
    shop: FakeShop, tmp_path: Path
) -> None:
    path = tmp_path / "index"
    shutil.copytree(shop.index, path)
    index = Index.open(path, shop.checkpoint)
    index.apply([Change("twin-1")])
    index.close()
    with closed(path):
        index = Index.open(path, shop.checkpoint)
        hits = index.reader().neighbours("twin-2", "same-item", Similarity.TT, 1)
        assert [hit.item.item_id for hit in hits] == ["twin-3"]
        refused = "may not be written by this user"
        with pytest.raises(ReadOnlyError, match=refused):
            index.apply([Change("twin-3")])
        with pytest.raises(ReadOnlyError, match=refused):
            index.compact()
        with pytest.raises(ReadOnlyError, match=refused):
            index.check_new_relation(SAILORS)
        index.close()
