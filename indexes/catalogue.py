"""The catalogue of an index: its items, kept in SQLite and read through SQLAlchemy.

It is the truth from which vectors are made; a row number is the item's place in it and in every FAISS index.
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

from model.errors import UnknownItemError
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
)

_Row = Row[*tuple[Any, ...]]

_COUNT = select(func.count()).select_from(_ITEMS)
_BY_ID = select(_ITEMS).where(_ITEMS.c.item_id == bindparam("item_id"))
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

    def __contains__(self, item_id: str) -> bool:
        """Whether an item has this id."""
        return self._find(item_id) is not None

    def row(self, item_id: str) -> int:
        """Row number of an item.

        Raises:
            UnknownItemError: no item has this id.
        """
        return int(self._known(item_id).row)

    def get(self, item_id: str) -> Item:
        """The item of this id.

        Raises:
            UnknownItemError: no item has this id.
        """
        return _item(self._known(item_id))

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

    def _find(self, item_id: str) -> _Row | None:
        with self._engine.connect() as connection:
            return connection.execute(_BY_ID, {"item_id": item_id}).first()

    def _known(self, item_id: str) -> _Row:
        found = self._find(item_id)
        if found is None:
            raise UnknownItemError(item_id)
        return found


def write_catalogue(folder: Path, items: Iterable[Item]) -> None:
    """Write `catalogue.sqlite` into `folder`; an item's row is its place in `items`."""
    rows = [{"row": row, **asdict(item)} for row, item in enumerate(items)]
    engine = create_engine(_url(folder))
    with engine.begin() as connection:
        _ITEMS.create(connection)
        if rows:
            connection.execute(insert(_ITEMS), rows)
    engine.dispose()


def _item(row: _Row) -> Item:
    return Item(
        item_id=row.item_id,
        title=row.title,
        description=row.description,
        categories=tuple(row.categories),
        text=row.text,
        picture=row.picture,
    )


def _url(folder: Path, **options: str) -> URL:
    """SQLite's own URI form, in which a path may hold `?` and `#`."""
    return URL.create(
        "sqlite", database=f"file:{quote(str(folder / FILE))}", query={**options, "uri": "true"}
    )
