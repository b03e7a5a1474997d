"""Goodreads: books, interactions in JSON and as a table of numbers, genres and shelves."""

import json
from pathlib import Path
from typing import Any

import pytest

from model.data.sources.goodreads import shelves
from model.errors import InputError

from .source_reading import items_of, log_of, opened, put, skipped


def shelf(name: str, count: int) -> dict[str, str]:
    return {"count": str(count), "name": name}


CATS: dict[str, Any] = {
    "book_id": "402128", "title": "Practical Frogs", "title_without_series": "Practical Frogs", "isbn": "0151686564",
    "popular_shelves": [shelf("to-read", 900), shelf("poetry", 90), shelf("cats-and-frogs", 80), shelf("owned", 7)],
    "description": "Poems.", "image_url": "https://i/402128.jpg", "publication_year": "1982", "num_pages": "",
    "average_rating": "4.09", "ratings_count": "15716", "is_ebook": "false", "authors": [{"author_id": "1"}],
    "isbn13": "", "format": "Hardcover", "publisher": "", "language_code": "", "series": [], "similar_books": [],
}  # fmt: skip

DOGS = {
    "book_id": "7", "title": "Dogs", "popular_shelves": [], "image_url": "https://s/nophoto/book/111x148.png",
    "publication_year": "",
}  # fmt: skip


def books(folder: Path) -> None:
    put(folder / "goodreads_books_poetry.json.gz", json.dumps(CATS) + "\n" + json.dumps(DOGS) + "\n")


def interactions(folder: Path) -> None:
    date = "Fri Apr 19 08:15:15 -0700 2013"
    rows = [
        {
            "user_id": "u1",
            "book_id": "402128",
            "is_read": True,
            "rating": 4,
            "date_added": date,
            "read_at": "",
        },
        {"user_id": "u2", "book_id": "7", "is_read": False, "rating": 0, "date_added": date, "read_at": ""},
    ]
    put(folder / "goodreads_interactions_poetry.json.gz", "".join(json.dumps(row) + "\n" for row in rows))


def test_books_have_shelves_as_categories_and_typed_attributes(tmp_path: Path) -> None:
    books(tmp_path)
    interactions(tmp_path)
    source = opened("goodreads", tmp_path)
    assert items_of(source) == {
        "402128": {
            "item_id": "402128", "title": "Practical Frogs", "description": "Poems.",
            "categories": ["poetry", "cats and frogs"], "images": ["https://i/402128.jpg"], "publication_year": 1982,
            "average_rating": 4.09, "ratings_count": 15716, "format": "Hardcover", "is_ebook": False,
            "isbn": "0151686564",
        },
        "7": {"item_id": "7", "title": "Dogs", "description": "", "categories": [], "images": []},
    }  # fmt: skip
    # A rating of 0 means that the book was not rated.
    assert log_of(source) == [("u1", "402128", 4.0, 1366384515.0), ("u2", "7", None, 1366384515.0)]


def test_the_file_of_genres_comes_before_the_shelves(tmp_path: Path) -> None:
    books(tmp_path)
    interactions(tmp_path)
    genres = {"poetry": 3, "history, historical fiction, biography": 20}
    row = (
        json.dumps({"book_id": "402128", "genres": genres})
        + "\n"
        + json.dumps({"book_id": "7", "genres": {}})
    )
    put(tmp_path / "goodreads_book_genres_initial.json", row)
    items = items_of(opened("goodreads", tmp_path))
    assert items["402128"]["categories"] == ["history, historical fiction, biography", "poetry"]
    assert items["7"]["categories"] == []


def test_the_table_of_interactions_is_mapped_to_the_ids(tmp_path: Path) -> None:
    books(tmp_path)
    put(
        tmp_path / "goodreads_interactions.csv",
        "user_id,book_id,is_read,rating,is_reviewed\n0,10,1,5,0\n1,11,1,0,0\n1,12,1,3,0\n",
    )
    put(tmp_path / "book_id_map.csv", "book_id_csv,book_id\n10,402128\n11,7\n")
    put(tmp_path / "user_id_map.csv", "user_id_csv,user_id\n0,abc\n1,def\n")
    source = opened("goodreads", tmp_path)
    assert log_of(source) == [("abc", "402128", 5.0, None), ("def", "7", None, None)]
    assert skipped(source) == {"the number of the book is not in book_id_map.csv": 1}


def test_the_table_without_its_map_is_refused(tmp_path: Path) -> None:
    books(tmp_path)
    put(tmp_path / "goodreads_interactions.csv", "user_id,book_id,is_read,rating,is_reviewed\n0,10,1,5,0\n")
    with pytest.raises(
        InputError, match=r"own numbers of books, which book_id_map\.csv maps .* Download it into"
    ):
        log_of(opened("goodreads", tmp_path))


def test_reviews_serve_as_a_log_if_they_are_named(tmp_path: Path) -> None:
    books(tmp_path)
    row = {
        "user_id": "u",
        "book_id": "7",
        "rating": 5,
        "review_text": "x",
        "date_added": "Tue Jun 12 08:59:04 -0700 2012",
    }
    path = put(tmp_path / "goodreads_reviews_poetry.json", json.dumps(row) + "\n")
    source = opened("goodreads", items=tmp_path / "goodreads_books_poetry.json.gz", interactions=path)
    assert log_of(source) == [("u", "7", 5.0, 1339516744.0)]
    assert log_of(opened("goodreads", tmp_path)) == [("u", "7", 5.0, 1339516744.0)]


def test_shelves_of_states_forms_and_years_are_no_categories() -> None:
    names = [
        "to-read", "currently-reading", "owned", "favorites", "favourites", "books-i-own", "default", "owned-books",
        "my-library", "to-buy", "home-library", "read-in-2016", "wish-list", "re-read", "own-it", "i-own", "kindle",
        "ebook", "audiobooks", "2017-reading-challenge", "dnf", "did-not-finish", "library", "childhood-favorites",
    ]  # fmt: skip
    kept = ["fantasy", "young-adult", "sci-fi", "historical-fiction", "bread-making", "harry-potter"]
    cell = [shelf(name, 100 - i) for i, name in enumerate([*names, *kept])]
    assert shelves(cell) == ["fantasy", "young adult", "sci fi", "historical fiction", "bread making"]
    assert shelves([shelf("rare", 2), shelf("common", 9)]) == ["common", "rare"]
    assert shelves(None) == []
