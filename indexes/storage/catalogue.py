"""Catalogue of a generation: its items, stored in SQLite.

The row number of an item is its position in the catalogue and in every vector file. Every request looks up items, so
they are read with `sqlite3` directly: through SQLAlchemy, a lookup took 26 microseconds instead of 4.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from threading import Lock, local
from typing import Any
from urllib.parse import quote

from model.durable_files import not_stored
from model.errors import NoWordIndexError, UnreachableError
from model.plain_file import decoding, plain_status
from model.records import Item

from .word_index import CREATE_WORDS, INSERT_WORDS, has_word_index, item_words, matching_rows

CATALOGUE_FILE = "catalogue.sqlite"
"""Name of the file within a generation that contains the items."""

CACHED_ROWS = 100_000
"""Maximum number of item IDs whose row numbers are cached in memory."""

INSERTED_ITEMS = 1_000
"""Number of items that are written at once."""

_CREATE = """
    CREATE TABLE items (
        "row" INTEGER NOT NULL PRIMARY KEY,
        item_id VARCHAR NOT NULL UNIQUE,
        title VARCHAR NOT NULL,
        description VARCHAR NOT NULL,
        categories JSON NOT NULL,
        text VARCHAR NOT NULL,
        picture VARCHAR NOT NULL,
        attributes JSON NOT NULL
    )
"""
_INSERT = "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_COUNT = "SELECT count(*) FROM items"
_ROW = 'SELECT "row" FROM items WHERE item_id = ?'
_UNPICTURED = "SELECT \"row\" FROM items WHERE picture = ''"
_AT_ROW = 'SELECT * FROM items WHERE "row" = ?'
_PAGE = 'SELECT * FROM items WHERE "row" >= ? ORDER BY "row" LIMIT ?'


class Catalogue:
    """Items of a generation, read-only; safe to use from many threads."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._own = local()
        self._opened: list[sqlite3.Connection] = []
        self._opening = Lock()
        self._rows: dict[str, int] = {}
        self._count = int(self._connection.execute(_COUNT).fetchone()[0])

    @classmethod
    def open(cls, folder: Path) -> "Catalogue":
        """Open the catalogue that `write_catalogue` wrote to `folder`.

        Raises:
            ArtifactError: the file is not a plain file, or is damaged.
        """
        path = folder / CATALOGUE_FILE
        plain_status(path, folder)
        with decoding(path):
            return cls(_uri(folder, "mode=ro&immutable=1"))

    def close(self) -> None:
        """Close the file. No other thread may still be reading it."""
        with self._opening:
            for connection in self._opened:
                connection.close()
            self._opened.clear()

    def __len__(self) -> int:
        """Return the number of items."""
        return self._count

    def without_picture(self) -> list[int]:
        """Return the rows of the items without a picture."""
        return [row for (row,) in self._connection.execute(_UNPICTURED)]

    def find(self, item_id: str) -> int | None:
        """Return the row of an item; None if no item has this ID."""
        row = self._rows.get(item_id)
        if row is None:
            found = self._connection.execute(_ROW, (item_id,)).fetchone()
            if found is None:
                return None
            row = int(found[0])
            if len(self._rows) < CACHED_ROWS:
                self._rows[item_id] = row
        return row

    def at(self, rows: Sequence[int]) -> list[Item]:
        """Read the items at `rows`, in the given order."""
        read = self._connection.execute
        return [_item(read(_AT_ROW, (row,)).fetchone()) for row in rows]

    def page(self, start: int, limit: int) -> list[Item]:
        """Read up to `limit` items from row `start` onwards, in catalogue order."""
        return [_item(row) for row in self._connection.execute(_PAGE, (start, limit))]

    def rows_with(self, words: Sequence[str], start: int) -> Iterator[int]:
        """Yield the rows from `start` on of the items that contain all `words`, in catalogue order.

        Raises:
            NoWordIndexError: An earlier version of rcml wrote the catalogue.
        """
        if not has_word_index(self._connection):
            raise NoWordIndexError
        return matching_rows(self._connection, words, start)

    @property
    def _connection(self) -> sqlite3.Connection:
        """Connection of the current thread, opened on first use.

        Raises:
            UnreachableError: The file cannot be opened, for example because its volume is gone.
        """
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            try:
                connection = sqlite3.connect(self._uri, uri=True, check_same_thread=False)
            except sqlite3.OperationalError as error:
                raise UnreachableError(
                    f"The catalogue of the index cannot be opened ({error}). Restore its folder or volume."
                ) from None
            self._own.connection = connection
            with self._opening:
                self._opened.append(connection)
        return connection


def write_catalogue(folder: Path, items: Iterable[Item]) -> None:
    """Write `catalogue.sqlite` into `folder`; the row of an item is its position in `items`.

    Raises:
        StorageError: the disk is full or failing.
    """
    try:
        connection = sqlite3.connect(_uri(folder, "mode=rwc"), uri=True)
        try:
            with connection:
                connection.execute(_CREATE)
                connection.execute(CREATE_WORDS)
                rows = enumerate(items)
                while chunk := list(islice(rows, INSERTED_ITEMS)):
                    connection.executemany(_INSERT, [_values(row, item) for row, item in chunk])
                    words = [(row, " ".join(item_words(item))) for row, item in chunk]
                    connection.executemany(INSERT_WORDS, words)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise not_stored(folder / CATALOGUE_FILE, error) from None


def _values(row: int, item: Item) -> tuple[Any, ...]:
    categories, attributes = json.dumps(item.categories), json.dumps(dict(item.attributes))
    return (row, item.item_id, item.title, item.description, categories, item.text, item.picture, attributes)


def _item(row: tuple[Any, ...]) -> Item:
    _, item_id, title, description, categories, text, picture, attributes = row
    return Item(
        item_id, title, description, tuple(json.loads(categories)), text, picture, json.loads(attributes)
    )


def _uri(folder: Path, options: str) -> str:
    """Return the SQLite URI of the catalogue. The path is quoted because it may contain `?` or `#`, or not be UTF-8."""
    return f"file:{quote(os.fsencode(folder / CATALOGUE_FILE))}?{options}"
