"""The catalogue of a generation: its items, kept in SQLite and read through SQLAlchemy.

A row number is the item's place in it and in every file of vectors.
The queries are built once: that costs four times as much as running one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    JSON,
    URL,
    Column,
    Engine,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    bindparam,
    create_engine,
    func,
    insert,
    select,
)
from sqlalchemy.exc import DBAPIError

from model.artifact import not_stored
from model.records import Item

FILE = "catalogue.sqlite"

_ITEMS = Table(
    "items",
    MetaData(),
    Column("row", Integer, primary_key=True, autoincrement=False),
    Column("item_id", String, nullable=False, unique=True),
    Column("title", String, nullable=False),
    Column("description", String, nullable=False),
    Column("categories", JSON, nullable=False),
    Column("text", String, nullable=False),
    Column("picture", String, nullable=False),
    Column("attributes", JSON, nullable=False),
)

_Row = Row[*tuple[Any, ...]]

_COUNT = select(func.count()).select_from(_ITEMS)
_ROW = select(_ITEMS.c.row).where(_ITEMS.c.item_id == bindparam("item_id"))
_UNPICTURED = select(_ITEMS.c.row).where(_ITEMS.c.picture == "")
_AT_ROWS = select(_ITEMS).where(_ITEMS.c.row.in_(bindparam("rows", expanding=True)))
_PAGE = (
    select(_ITEMS).where(_ITEMS.c.row >= bindparam("start")).order_by(_ITEMS.c.row).limit(bindparam("limit"))
)


class Catalogue:
    """The items of an index, read only; safe to use from many threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        with engine.connect() as connection:
            self._count = int(connection.execute(_COUNT).scalar_one())

    @classmethod
    def open(cls, folder: Path) -> "Catalogue":
        """Open the catalogue that `write_catalogue` left in `folder`."""
        return cls(create_engine(_url(folder, mode="ro", immutable="1")))

    def close(self) -> None:
        """Give the file back."""
        self._engine.dispose()

    def __len__(self) -> int:
        """Number of items."""
        return self._count

    def without_picture(self) -> list[int]:
        """Rows of the items that have none."""
        with self._engine.connect() as connection:
            return list(connection.execute(_UNPICTURED).scalars())

    def find(self, item_id: str) -> int | None:
        """Row number of an item, or None if no item has this id."""
        with self._engine.connect() as connection:
            return connection.execute(_ROW, {"item_id": item_id}).scalar_one_or_none()

    def at(self, rows: Sequence[int]) -> list[Item]:
        """The items at `rows`, in that order."""
        with self._engine.connect() as connection:
            found = connection.execute(_AT_ROWS, {"rows": list(rows)})
            items = {row.row: _item(row) for row in found}
        return [items[row] for row in rows]

    def page(self, start: int, limit: int) -> list[Item]:
        """At most `limit` items from row `start` on, in catalogue order."""
        with self._engine.connect() as connection:
            return [_item(row) for row in connection.execute(_PAGE, {"start": start, "limit": limit})]


def write_catalogue(folder: Path, items: Iterable[Item]) -> None:
    """Write `catalogue.sqlite` into `folder`; an item's row is its place in `items`.

    Raises:
        StorageError: the disk is full or failing.
    """
    rows = [{"row": row, **asdict(item)} for row, item in enumerate(items)]
    engine = create_engine(_url(folder))
    try:
        with engine.begin() as connection:
            _ITEMS.create(connection)
            if rows:
                connection.execute(insert(_ITEMS), rows)
    except DBAPIError as error:
        raise not_stored(folder / FILE, error.orig) from None
    finally:
        engine.dispose()


def _item(row: _Row) -> Item:
    return Item(
        item_id=row.item_id,
        title=row.title,
        description=row.description,
        categories=tuple(row.categories),
        text=row.text,
        picture=row.picture,
        attributes=row.attributes,
    )


def _url(folder: Path, **options: str) -> URL:
    """SQLite's own URI form, in which a path may hold `?` and `#`."""
    return URL.create(
        "sqlite", database=f"file:{quote(str(folder / FILE))}", query={**options, "uri": "true"}
    )
