"""Search of items by words and by category, and the numbers of items of the categories."""

import sqlite3
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexes.index import Index
from indexes.journal.change import Change
from indexes.live.snapshot import Snapshot
from indexes.search.item_search import category_counts, find_items
from indexes.storage.attributes import Attributes, write_attributes
from indexes.storage.catalogue import CATALOGUE_FILE, Catalogue, write_catalogue
from indexes.storage.word_index import split_words
from model.errors import NoWordIndexError
from model.records import Item
from tests.indexes.changes import copied, put
from tests.indexes.fakes import ITEMS, FakeShop


@pytest.fixture
def index(shop: FakeShop, tmp_path: Path) -> Iterator[Index]:
    opened = Index.open(copied(shop, tmp_path))
    yield opened
    opened.close()


def upsert(item_id: str, title: str, *categories: str) -> Change:
    picture = BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    return put(Item(item_id, title, "", categories, title, ""), picture.getvalue())


def found(
    snapshot: Snapshot, text: str | None = None, category: str | None = None, start: int = 0
) -> list[str]:
    return [item.item_id for _, item in find_items(snapshot, text, category, start, 100)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("striped mug", ["red-mug", "blue-mug"]),
        ("MUG stri", ["red-mug", "blue-mug"]),
        ("str", ["red-mug", "blue-mug", "bib"]),
        ("kitchen w", ["tasse-é"]),
        ("weisse tasse", ["tasse-é"]),
        ("tassé", ["tasse-é"]),
        ("twin-2", ["twin-2"]),
        ("green, (tools)!", ["twin-1", "twin-2", "twin-3"]),
        ("striped striped", ["red-mug", "blue-mug", "bib"]),
        ("ug", []),
        ("red blue", []),
        ("", []),
        ('"*', []),
        ("AND", []),
        ("striped OR cot", []),
        ("\0", []),
        ("\ud800", []),
    ],
)
def test_finds_items_by_the_beginnings_of_their_words(index: Index, text: str, expected: list[str]) -> None:
    assert found(index.snapshot, text) == expected


def test_finds_no_item_that_lacks_one_of_many_words(index: Index) -> None:
    many = " ".join("striped"[:length] for length in range(1, 8)) + " mug" * 20
    assert found(index.snapshot, many) == ["red-mug", "blue-mug"]
    assert found(index.snapshot, f"{many} blue") == ["blue-mug"]
    assert found(index.snapshot, f"{many} sofa") == []


@pytest.mark.parametrize(
    ("title", "text"),
    [("Lego™ castle", "legotm"), ("Parfum №5", "no5"), ("Boots ᦎᦲᦎ", "ᦎᦲᦎ")],
)
def test_added_and_compacted_items_are_found_by_the_same_words(index: Index, title: str, text: str) -> None:
    index.apply([upsert("new", title)])
    assert found(index.snapshot, text) == ["new"]
    index.compact()
    assert found(index.snapshot, text) == ["new"]


def test_finds_items_of_a_category(index: Index) -> None:
    assert found(index.snapshot, category="Tools") == ["twin-1", "twin-2", "twin-3", "trowel"]
    assert found(index.snapshot, category="Tool") == []
    assert found(index.snapshot, "steel", "Tools") == ["trowel"]
    assert found(index.snapshot, "steel", "Kitchen") == []


def test_pages_go_on_where_the_page_before_ended(index: Index) -> None:
    index.apply([upsert("new", "Striped kite", "Kitchen")])
    for text, category in ((None, None), ("s", None), (None, "Kitchen"), ("str", "Kitchen")):
        everything = find_items(index.snapshot, text, category, 0, 100)
        paged, start = [], 0
        while page := find_items(index.snapshot, text, category, start, 2):
            paged += page
            start = page[-1][0] + 1
        assert paged == everything
        assert len(paged) > 2


def test_searches_items_as_they_are_now(index: Index) -> None:
    index.apply([upsert("new", "Striped kite", "Toys"), Change("bib")])
    index.apply([upsert("red-mug", "Red dotted mug", "Kitchen")])
    assert found(index.snapshot, "striped") == ["blue-mug", "new"]
    assert found(index.snapshot, "dotted k") == ["red-mug"]
    assert found(index.snapshot, category="Toys") == ["new"]
    index.apply([Change("new")])
    assert found(index.snapshot, "kite") == []


def test_compacted_items_are_found_alike(index: Index) -> None:
    index.apply([upsert("new", "Striped kite", "Toys"), Change("bib")])
    index.compact()
    assert not index.snapshot.overlay.changes
    assert found(index.snapshot, "striped") == ["red-mug", "blue-mug", "new"]
    assert found(index.snapshot, category="Toys") == ["new"]


def test_counts_the_items_of_each_category(index: Index) -> None:
    before = [
        ("Garden", 4), ("Tools", 4), ("Kitchen", 3), ("Feeding", 2), ("Clothing", 1), ("Nursery", 1), ("Office", 1),
    ]  # fmt: skip
    assert category_counts(index.snapshot) == before
    index.apply([upsert("new", "Kite", "Toys", "Toys"), Change("cot"), Change("trowel")])
    after = dict(before) | {"Toys": 1, "Garden": 3, "Tools": 3}
    del after["Nursery"]
    assert dict(category_counts(index.snapshot)) == after
    for category, items in after.items():
        assert len(found(index.snapshot, category=category)) == items


def test_a_category_that_an_item_has_twice_counts_once(tmp_path: Path) -> None:
    items = [Item("a", "A", "", ("X", "X", "Y"), "", ""), Item("b", "B", "", ("Y",), "", "")]
    write_attributes(tmp_path, items)
    counts = Attributes(tmp_path).category_counts
    assert counts(np.array([], np.int64)) == {"X": 1, "Y": 2}
    assert counts(np.array([0])) == {"X": 0, "Y": 1}


def test_catalogue_without_a_word_index_names_the_remedy(tmp_path: Path) -> None:
    write_catalogue(tmp_path, ITEMS)
    connection = sqlite3.connect(tmp_path / CATALOGUE_FILE)
    connection.execute("DROP TABLE words")
    connection.close()
    catalogue = Catalogue.open(tmp_path)
    with pytest.raises(NoWordIndexError, match="rcml index compact"):
        catalogue.rows_with(["mug"], 0)
    catalogue.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Zigzag flip-flop, 2.5 m", ["zigzag", "flip", "flop", "2", "5", "m"]),
        ("ÉTÉ Ärmel ﬁnal", ["ete", "armel", "final"]),
        ("snake_case 手袋", ["snake", "case", "手袋"]),
        ("İstanbul", ["istanbul"]),
        ("№ 5 ℡", ["no", "5", "tel"]),
    ],
)
def test_words_have_neither_case_nor_accents(text: str, words: list[str]) -> None:
    assert split_words(text) == words
