"""The catalogue gives back what was written, in the order in which it was written."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from indexes.storage.catalogue import Catalogue, write_catalogue
from tests.indexes.fakes import ITEMS, ids


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    write_catalogue(tmp_path, ITEMS)
    catalogue = Catalogue.open(tmp_path)
    yield catalogue
    catalogue.close()


def test_every_item_comes_back_unchanged(catalogue: Catalogue) -> None:
    assert catalogue.at(range(len(ITEMS))) == list(ITEMS)


def test_a_row_is_the_place_among_the_items_written(catalogue: Catalogue) -> None:
    assert [catalogue.find(item_id) for item_id in ids()] == list(range(len(ITEMS)))


def test_items_at_rows_come_in_the_order_asked_for(catalogue: Catalogue) -> None:
    assert catalogue.at([4, 0, 11, 0]) == [ITEMS[4], ITEMS[0], ITEMS[11], ITEMS[0]]


def test_it_knows_how_many_and_which_items_there_are(catalogue: Catalogue) -> None:
    assert len(catalogue) == len(ITEMS)
    assert catalogue.find("cot") is not None
    assert catalogue.find("COT") is None


def test_pages_follow_one_another_without_gap_or_overlap(catalogue: Catalogue) -> None:
    pages = [catalogue.page(start, 5) for start in (0, 5, 10, 15)]
    assert [len(page) for page in pages] == [5, 5, 2, 0]
    assert tuple(item for page in pages for item in page) == ITEMS


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "what? 100% #1"
    folder.mkdir()
    write_catalogue(folder, ITEMS[:1])
    catalogue = Catalogue.open(folder)
    assert len(catalogue) == 1
    catalogue.close()


def test_an_empty_catalogue_has_no_items(tmp_path: Path) -> None:
    write_catalogue(tmp_path, [])
    catalogue = Catalogue.open(tmp_path)
    assert (len(catalogue), catalogue.page(0, 10)) == (0, [])
    catalogue.close()
