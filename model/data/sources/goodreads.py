"""Goodreads (Wan and McAuley 2018, doi 10.1145/3240323.3240369): books, what users did with them, and genres.

All values of books are texts. A rating of 0 means "not rated". The table of all interactions has its own numbers of
books and users, which two more tables map to the IDs.
"""

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from model.data.files.row_ledger import RowLedger
from model.data.files.table_reader import kind_of, read_rows, read_strings
from model.data.prepare_config import ColumnType
from model.errors import InputError

from .source import LogColumns, Source, attributes, found_files, set_aside

MAX_SHELVES = 5
"""Maximum number of shelves that become categories of a book."""

_NO_GENRE = re.compile(
    r"""(?x)
    (?:^|-)(?: to-(?:read|buy|get|review|re-?read|borrow|watch|finish) | currently | reading | re-?read | owned?
      | own-it | i-have | have | want | wish-?list | favou?rites? | fav | faves? | default | library
      | (?:home|my)-library | my-books? | books-i-own | kindle | e-?books? | audio-?books? | audible | audio
      | paperbacks? | hardcovers? | nook | did-not-finish | dnf | abandoned | unfinished | maybe | shelf | book-?club
      | borrowed | bought | buy | giveaways? | arcs? | netgalley | reviewed | finished | challenge | tbr | next
      | later | on-hold | gave-up | my-collection | physical | calibre | series | stars? | stand-alones? | all-time
      | priority | school | home )(?:-|$)
    | ^(?:read|i-|my-|in-) | \d{4} | -read$
    """
)
"""Shelves that say what a user did or wants, or in which form, instead of what the book is about."""


class Goodreads(Source):
    """Books and interactions, all of them or those of one genre."""

    types: ClassVar[Mapping[str, ColumnType]] = {
        "publication_year": "integer",
        "num_pages": "integer",
        "average_rating": "number",
        "ratings_count": "integer",
        "is_ebook": "boolean",
        "isbn": "text",
        "isbn13": "text",
    }

    item_names: ClassVar[tuple[str, ...]] = ("goodreads_books*.json",)
    log_names: ClassVar[tuple[str, ...]] = (
        "goodreads_interactions*.json",
        "goodreads_interactions*.csv",
        "goodreads_reviews*.json",
    )

    @property
    def untyped(self) -> bool:
        """Tell that the types of attributes must be found, because all cells are texts."""
        return True

    @cached_property
    def _genres(self) -> dict[str, list[str]] | None:
        """Genres of each book, the one with most votes first; None if the file is absent."""
        files = found_files(self.folder, "goodreads_book_genres*.json", needed=False)
        if not files:
            return None
        known: dict[tuple[str, ...], list[str]] = {}
        genres: dict[str, list[str]] = {}
        for path in files:
            for _, row in read_rows(path, self.ledger(path)):
                votes = row.get("genres")
                if isinstance(votes, dict):
                    names = tuple(sorted(votes, key=lambda name: -_count(votes[name])))
                    genres[str(row.get("book_id"))] = known.setdefault(names, list(names))
        return genres

    def item(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a book with its genres, or with its most used shelves if there is no file of genres."""
        book = str(row.get("book_id") or "")
        picture = row.get("image_url")
        genres = self._genres
        return {
            "item_id": book,
            "title": row.get("title") or row.get("title_without_series"),
            "description": row.get("description"),
            "categories": shelves(row.get("popular_shelves")) if genres is None else genres.get(book, []),
            "images": [picture] if isinstance(picture, str) and picture and "nophoto" not in picture else [],
            **attributes(
                row, "publication_year", "num_pages", "average_rating", "ratings_count", "format", "publisher",
                "language_code", "is_ebook", "isbn", "isbn13",
            ),
        }  # fmt: skip

    def log_columns(self, path: Path) -> LogColumns:
        """Return the columns of interactions and reviews."""
        return {
            "user_id": ("user_id",),
            "item_id": ("book_id",),
            "rating": ("rating",),
            "timestamp": ("date_added", "date_updated", "read_at"),
        }

    def batch(self, batch: pl.DataFrame, ledger: RowLedger) -> pl.DataFrame:
        """Return a batch with ratings of 0 as null, and with the IDs that the numbers of a table stand for."""
        rating = pl.col("rating").str.strip_chars()
        batch = batch.with_columns(pl.when(~rating.is_in(["0", "0.0"])).then(rating))
        if kind_of(ledger.path) != "csv":
            return batch
        batch = _mapped(batch, "item_id", self._ids("book_id", ledger.path))
        # Without its ID, the number of one book would be taken for the ID of another.
        reason = "the number of the book is not in book_id_map.csv"
        batch = set_aside(batch, ledger, ~pl.col("mapped"), reason, "item_id").drop("mapped")
        users = self._ids("user_id", ledger.path, needed=False)
        return batch if users is None else _mapped(batch, "user_id", users).drop("mapped")

    def _ids(self, name: str, log: Path, needed: bool = True) -> pl.DataFrame | None:
        """Read the map from the numbers in the table `log` to the IDs of books or users."""
        if name not in self._maps:
            pattern = f"{name}_map.csv"
            files = found_files(self.folder, pattern, needed=False) or found_files(
                log.parent, pattern, needed=False
            )
            if not files and needed:
                raise InputError(
                    f"{log} has its own numbers of books, which {pattern} maps to their IDs. Download it into "
                    f"{self.folder}."
                )
            columns = {"number": (f"{name}_csv",), "id": (name,)}
            frames = [frame for path in files for frame in read_strings(path, self.ledger(path), columns)]
            self._maps[name] = (
                pl.concat(frames).unique("number", keep="first", maintain_order=True) if frames else None
            )
        return self._maps[name]

    @cached_property
    def _maps(self) -> dict[str, pl.DataFrame | None]:
        """Maps of IDs that were read so far."""
        return {}


def _mapped(batch: pl.DataFrame, column: str, ids: pl.DataFrame | None) -> pl.DataFrame:
    """Replace the numbers in `column` by the IDs. A number without an ID stays, and is not `mapped`."""
    assert ids is not None
    joined = batch.join(ids, left_on=column, right_on="number", how="left", maintain_order="left")
    return joined.with_columns(
        pl.coalesce("id", column).alias(column), pl.col("id").is_not_null().alias("mapped")
    ).drop("id")


def shelves(cell: object) -> list[str]:
    """Return the names of the most used shelves that say what a book is about, at most `MAX_SHELVES`."""
    rows = [row for row in cell if isinstance(row, dict)] if isinstance(cell, list) else []
    rows.sort(key=lambda row: -_count(row.get("count")))
    names = (str(row.get("name") or "") for row in rows)
    return [name.replace("-", " ") for name in names if name and not _NO_GENRE.search(name)][:MAX_SHELVES]


def _count(value: object) -> int:
    text = str(value)
    return int(text) if text.isdecimal() else 0
