"""The catalogue returns the written items in their original order."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from indexes.storage.catalogue import Catalogue, write_catalogue
from model.errors import UnreachableError
from tests.indexes.fakes import ITEMS, ids


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    write_catalogue(tmp_path, ITEMS)
    catalogue = Catalogue.open(tmp_path)
    yield catalogue
    catalogue.close()


def test_returns_every_item_unchanged(catalogue: Catalogue) -> None:
    assert catalogue.at(range(len(ITEMS))) == list(ITEMS)


def test_row_is_position_among_written_items(catalogue: Catalogue) -> None:
    assert [catalogue.find(item_id) for item_id in ids()] == list(range(len(ITEMS)))


def test_returns_items_in_requested_order(catalogue: Catalogue) -> None:
    assert catalogue.at([4, 0, 11, 0]) == [ITEMS[4], ITEMS[0], ITEMS[11], ITEMS[0]]


def test_reports_length_and_finds_ids_case_sensitively(catalogue: Catalogue) -> None:
    assert len(catalogue) == len(ITEMS)
    assert catalogue.find("cot") is not None
    assert catalogue.find("COT") is None


def test_pages_have_no_gap_or_overlap(catalogue: Catalogue) -> None:
    pages = [catalogue.page(start, 5) for start in (0, 5, 10, 15)]
    assert [len(page) for page in pages] == [5, 5, 2, 0]
    assert tuple(item for page in pages for item in page) == ITEMS


def test_accepts_special_characters_in_folder_name(tmp_path: Path) -> None:
    folder = tmp_path / "what? 100% #1"
    folder.mkdir()
    write_catalogue(folder, ITEMS[:1])
    catalogue = Catalogue.open(folder)
    assert len(catalogue) == 1
    catalogue.close()


def test_empty_catalogue_has_no_items(tmp_path: Path) -> None:
    write_catalogue(tmp_path, [])
    catalogue = Catalogue.open(tmp_path)
    assert (len(catalogue), catalogue.page(0, 10)) == (0, [])
    catalogue.close()


def test_names_a_file_that_is_gone_when_another_thread_reads_it(catalogue: Catalogue, tmp_path: Path) -> None:
    assert catalogue.at([0]) == [ITEMS[0]]
    for path in tmp_path.iterdir():
        path.unlink()
    with (
        ThreadPoolExecutor(1) as other,
        pytest.raises(UnreachableError, match="catalogue of the index cannot be"),
    ):
        other.submit(catalogue.at, [0]).result()
    assert catalogue.at([1]) == [ITEMS[1]]
