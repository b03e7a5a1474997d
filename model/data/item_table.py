"""Table of items from the raw rows of a source: clean texts, lists of categories and pictures, typed attributes.

Every row is kept, or set aside in its file's ledger with a reason. What was changed is counted and told in the report.
"""

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from model.data.columns.column_types import TypedColumn, typed_column
from model.data.columns.lists import read_list, read_pictures
from model.data.columns.text_cleaning import clean_text
from model.data.files.literals import as_id, as_text
from model.data.files.row_ledger import RowLedger
from model.data.prepare_config import ColumnType
from model.data.sources.source import RawRow
from model.errors import InputError
from model.item_limits import MAX_DESCRIPTION_CHARACTERS, MAX_TEXT_CHARACTERS

ITEM_COLUMNS = ("item_id", "title", "description", "categories", "images")
"""Columns of an item that rcml reads itself; every other column is an attribute."""

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "item_id": pl.String,
    "title": pl.String,
    "description": pl.String,
    "categories": pl.List(pl.String),
    "images": pl.List(pl.String),
}


@dataclass
class ItemTable:
    """Items as read: `frame` has the columns of `SCHEMA` and the attributes of `columns`.

    `folders` has the folder of the file of each item. `changes` maps each kind of change in the texts to the number of
    changed texts. `left_out` maps the names of columns that cannot be attributes to the reason.
    """

    frame: pl.DataFrame
    columns: dict[str, TypedColumn]
    changes: Counter[str]
    left_out: dict[str, str]
    folders: list[Path]


@dataclass
class _Cells:
    """Cells of the attribute columns; a column that begins in a later row is null before."""

    rows: int = 0
    columns: dict[str, list[object]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, row: Mapping[str, object]) -> None:
        """Add the attributes of one row."""
        for name, value in row.items():
            if name in ITEM_COLUMNS or name in self.left_out:
                continue
            if isinstance(value, dict | list | tuple):
                if value:
                    self.left_out[name] = "lists and objects cannot be attributes"
                    self.columns.pop(name, None)
                continue
            cells = self.columns.setdefault(name, [])
            cells.extend([None] * (self.rows - len(cells)))
            cells.append(value)
        self.rows += 1

    def complete(self, types: Mapping[str, ColumnType]) -> None:
        """Fill the columns that no late row had, and refuse `types` of columns that do not exist."""
        _refuse_unknown(types, self.columns)
        for cells in self.columns.values():
            cells.extend([None] * (self.rows - len(cells)))


def read_item_table(
    rows: Iterable[RawRow],
    types: Mapping[str, ColumnType] | None = None,
    untyped: bool = True,
    documented: Mapping[str, ColumnType] | None = None,
) -> ItemTable:
    """Read items from raw rows. `types` states the types of attributes; `untyped` says that the format has none.

    `documented` contains the types that the format documents, also for attributes that these rows may lack.

    A row without an ID, or with the ID of an earlier row, is set aside.

    Raises:
        InputError: no row is left, or `types` names a column that does not exist.
    """
    own: dict[str, list[object]] = {name: [] for name in SCHEMA}
    attributes = _Cells()
    changes: Counter[str] = Counter()
    first_lines: dict[str, int] = {}
    category_names: dict[str, str] = {}
    ledgers: dict[Path, RowLedger] = {}
    folders: list[Path] = []
    for ledger, line, row in rows:
        ledgers[ledger.path] = ledger
        item_id = as_id(row.get("item_id")) or ""
        if refused := _refused(row, item_id, first_lines):
            ledger.skip(refused[0], line, refused[1])
            continue
        first_lines[item_id] = line
        folders.append(ledger.path.parent)
        own["item_id"].append(item_id)
        title = _one_line(clean_text(as_text(row.get("title")) or "", changes))
        own["title"].append(title)
        changes["items without a title"] += not title.strip()
        description = clean_text(_joined(row.get("description")), changes)
        own["description"].append(_cut(description, MAX_DESCRIPTION_CHARACTERS, "descriptions", changes))
        categories = read_list(row.get("categories"))
        for name in categories:
            if name not in category_names:
                category_names[name] = " ".join(clean_text(name, changes).split())
        cleaned = (category_names[name] for name in categories)
        own["categories"].append(list(dict.fromkeys(name for name in cleaned if name)))
        own["images"].append(read_pictures(row.get("images")))
        attributes.add(row)
    if not first_lines:
        raise InputError(_none_left(ledgers))
    changes = +changes
    attributes.complete(types or {})
    stated = {**(documented or {}), **(types or {})}
    columns = {
        name: _cleaned(typed_column(name, cells, stated.get(name), untyped), changes)
        for name, cells in attributes.columns.items()
    }
    frame = pl.DataFrame(own, dict(SCHEMA)).with_columns(column.values for column in columns.values())
    return ItemTable(frame, columns, changes, attributes.left_out, folders)


def _refused(row: Mapping[str, Any], item_id: str, known: Container[str]) -> tuple[str, str] | None:
    """Return why a row is no item, and the value that shows it; None if it is one."""
    for name in ("item_id", "title"):
        if isinstance(row.get(name), dict | list):
            return f"the {name} is a list or an object, not a text", as_text(row[name]) or ""
    if not item_id.strip():
        return "the item has no ID (item_id)", as_text(row.get("title")) or ""
    return ("the ID (item_id) is that of an earlier row", item_id) if item_id in known else None


def _refuse_unknown(types: Mapping[str, ColumnType], columns: Mapping[str, list[object]]) -> None:
    """Refuse types of columns that do not exist."""
    unknown = sorted(set(types) - set(columns))
    if unknown:
        raise InputError(
            f"--types names the column {unknown[0]!r}, which is no attribute of the items. Their attributes "
            f"are: {', '.join(columns) or 'none'}."
        )


def _none_left(ledgers: Mapping[Path, RowLedger]) -> str:
    found = "; ".join(ledger.summary() for ledger in ledgers.values())
    return (
        f"No item is left. {found}. Check that these are the right files and columns."
        if found
        else ("The files contain no item. Check that they are the right files.")
    )


def _cleaned(column: TypedColumn, changes: Counter[str]) -> TypedColumn:
    """Clean the values of a column of texts; an empty text is no value."""
    if column.type != "text":
        return column
    name = f"values of {column.values.name}"
    cleaned = (clean_text(text or "", changes) for text in column.values)
    texts = [_cut(text, MAX_TEXT_CHARACTERS, name, changes) or None for text in cleaned]
    return replace(column, values=pl.Series(column.values.name, texts, dtype=pl.String))


def _cut(text: str, most: int, what: str, changes: Counter[str]) -> str:
    """Return at most `most` characters of `text`, and count what was cut."""
    if len(text) <= most:
        return text
    changes[f"{what} cut to {most:,} characters"] += 1
    return text[:most].rstrip()


def _one_line(title: str) -> str:
    """Join the lines of a title; a title in one line keeps its spaces."""
    return title if title.isprintable() else " ".join(part for part in re.split(r"[\t\r\n]+", title) if part)


def _joined(cell: object) -> str:
    """Return a description as one text; a list of paragraphs is joined."""
    if isinstance(cell, list | tuple):
        return "\n".join(text for part in cell if (text := as_text(part)))
    return as_text(cell) or ""
