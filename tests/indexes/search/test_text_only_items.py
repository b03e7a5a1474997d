"""Text-only items: found by text and by average, never by picture, before and after changes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexes.admin.inspection import verify
from indexes.builder.build import build
from indexes.config import BuildConfig, VerifyConfig
from indexes.index import Index
from indexes.journal.change import Change
from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared_data import Prepared
from model.embeddings.encoding import Encoding
from model.errors import NoPictureError
from model.similarity import Similarity, View
from tests.indexes.changes import made
from tests.indexes.fakes import ITEMS, FakeEncoder, write_checkpoint, write_prepared

WORDLESS = {"red-mug", "cot"}
MIXED = tuple(replace(item, picture="") if item.item_id in WORDLESS else item for item in ITEMS)


@pytest.fixture
def mixed(tmp_path: Path) -> Index:
    write_prepared(tmp_path / "prepared", MIXED)
    write_checkpoint(tmp_path / "checkpoint")
    config = BuildConfig(
        checkpoint=tmp_path / "checkpoint",
        prepared=tmp_path / "prepared",
        out=tmp_path / "index",
        answers="all",
        token_store=True,
    )
    build(config, FakeEncoder(), Checkpoint.open(config.checkpoint), Prepared.open(config.prepared))
    return Index.open(config.out)


def words_alone(item_id: str, seed: int) -> Change:
    item = made(item_id, seed).item
    assert item is not None
    encoding = FakeEncoder().read_items([item.text], [None], tokens=True)()
    vectors = np.stack([encoding.view(view)[0] for view in View]).astype(np.float16)
    return Change.put(replace(item, picture=""), vectors, b"", encoding.tokens)


def found(index: Index, item_id: str, similarity: Similarity) -> dict[str, float]:
    return {
        hit.item.item_id: hit.score
        for hit in index.reader().neighbours(item_id, "gardeners", similarity, 100)
    }


def check(index: Index, wordless: set[str]) -> None:
    everything = {item.item_id for _, item in index.snapshot.page(0, 100)}
    for similarity in (Similarity.II, Similarity.TI):
        assert found(index, "tie", similarity).keys() == everything - wordless - {"tie"}
        worded = FakeEncoder().read_relation("worn by sailors")
        hits = index.reader().neighbours("tie", worded, similarity, 100)
        assert {hit.item.item_id for hit in hits} == everything - wordless - {"tie"}
    for similarity in (Similarity.TT, Similarity.IT, Similarity.AVG):
        assert found(index, "tie", similarity).keys() == everything - {"tie"}
    for item_id in wordless:
        assert found(index, item_id, Similarity.AVG).keys() == everything - {item_id}
        for similarity in (Similarity.II, Similarity.IT):
            with pytest.raises(NoPictureError, match=f"Item '{item_id}' has no picture"):
                index.reader().neighbours(item_id, "gardeners", similarity, 3)
            with pytest.raises(NoPictureError, match=item_id):
                index.reader().relation_scores(item_id, "tie", similarity)
        with pytest.raises(NoPictureError, match=item_id):
            index.reader().relation_scores("tie", item_id, Similarity.TI)
        assert 0 < index.reader().validity(item_id, "tie", "gardeners").probability < 1
        with pytest.raises(NoPictureError):
            index.picture(item_id)


def test_finds_text_only_items_by_text_and_average_only(mixed: Index) -> None:
    check(mixed, WORDLESS)
    assert mixed.snapshot.generation.answers.similarities == (Similarity.TT, Similarity.AVG)
    mixed.close()


def test_average_vector_of_text_only_item_equals_its_text_vector(mixed: Index) -> None:
    texts, averages = (
        mixed.snapshot.vectors(1, view, [mixed.snapshot.row("cot")]) for view in (View.TEXT, View.AVERAGE)
    )
    np.testing.assert_array_equal(texts, averages)
    expected: Encoding = FakeEncoder().read_items([ITEMS[7].text], [None])()
    np.testing.assert_allclose(texts[0], expected.text[0, 1], atol=1e-3)
    mixed.close()


def test_adds_replaces_and_deletes_text_only_items(mixed: Index) -> None:
    mixed.apply([words_alone("new", 3), Change("cot")])
    check(mixed, {"red-mug", "new"})
    mixed.compact()
    check(mixed, {"red-mug", "new"})
    assert "is intact: 12 items" in verify(VerifyConfig(index=mixed.path))
    mixed.apply([words_alone("tie-2", 4), words_alone("bib", 5)])
    check(mixed, {"red-mug", "new", "tie-2", "bib"})
    again = Index.open(mixed.path)
    check(again, {"red-mug", "new", "tie-2", "bib"})
    again.close()
    mixed.close()


def test_snapshot_has_no_picture_mask_if_all_items_have_pictures(index: Index) -> None:
    assert index.snapshot.pictured is None
