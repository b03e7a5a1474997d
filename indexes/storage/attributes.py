"""Attributes of items (price, stock, brand), stored in columns, and the evaluation of filter conditions on them.

    attributes.parquet   one row per item; the numbers of an attribute `price` are in the column `price.number`, its
                         texts in the column `price.text`, the categories in the column `categories`; whole numbers
                         that a double cannot hold, such as IDs of 19 digits, are in the column `price.integer`

A column without values is omitted, and an item without a value has null.

A filter reads the sorted form of the columns that it names (`sorted_column.py`).
"""

from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Int64, Num
from numpy import ndarray

from model.durable_files import link_or_copy, take_over_folder
from model.plain_file import decoding, open_plain
from model.records import Item

from .filters import Condition, is_double
from .sorted_column import ColumnKind, SortedColumn

ATTRIBUTES_FILE = "attributes.parquet"
"""Name of the file within a generation that contains the attributes."""

SORTED_DIR = "sorted-attributes"
"""Name of the folder within a generation that contains the sorted columns."""

_DTYPES = {"text": pl.String, "number": pl.Float64, "integer": pl.Int64}

CATEGORIES = "categories"
"""Name that conditions use for the categories of an item, which are not an attribute."""


class Attributes:
    """Attributes of a generation; safe to use from many threads."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / ATTRIBUTES_FILE
        self._sorted_folder = folder / SORTED_DIR
        # polars opens only paths that are valid UTF-8
        with decoding(self._path), open_plain(self._path, folder) as file:
            self._places = {name: place for place, name in enumerate(pl.read_parquet_schema(file))}
        with decoding(self._path), open_plain(self._path, folder) as file:
            self._count = int(pl.scan_parquet(file).select(pl.len()).collect().item())
        self._columns: dict[str, SortedColumn] = {}
        columns = [name.rpartition(".") for name in self._places if name != CATEGORIES]
        self.texts = frozenset(name for name, _, kind in columns if kind == "text")
        """Names of the attributes that are a text on at least one item."""
        self.numbers = frozenset(name for name, _, kind in columns if kind != "text")
        """Names of the attributes that are a number, true or false on at least one item."""

    def __len__(self) -> int:
        """Return the number of items."""
        return self._count

    def mask(self, where: Mapping[str, Condition]) -> Bool[ndarray, " count"]:
        """Return for each row whether the item meets all conditions; `where` must not be empty.

        No item meets a condition on an unknown attribute.
        """
        masks = []
        for name, condition in where.items():
            met = np.zeros(self._count, bool)
            for column in [name] if name == CATEGORIES else [f"{name}.{kind}" for kind in _DTYPES]:
                if column in self._places:
                    self._column(column).mark(condition, met)
            masks.append(met)
        return masks[0] if len(masks) == 1 else np.logical_and.reduce(masks)

    def category_counts(self, without: Int64[ndarray, " dropped"]) -> dict[str, int]:
        """Return the number of items of each category, not counting the rows in `without`."""
        return self._column(CATEGORIES).counts(without) if CATEGORIES in self._places else {}

    def _column(self, name: str) -> SortedColumn:
        """Open a sorted column, or sort it if an earlier version of rcml wrote the generation."""
        if name not in self._columns:
            place = self._places[name]
            if self._sorted_folder.is_dir():
                column = SortedColumn.open(self._sorted_folder, place, _kind(name))
            else:
                with decoding(self._path), open_plain(self._path, self._path.parent) as file:
                    column = SortedColumn.of(pl.read_parquet(file, columns=[name])[name])
            self._columns[name] = column
        return self._columns[name]


class AppendedAttributes:
    """Attributes of items that are appended one by one; many threads may read while one thread appends.

    A reader passes `count` and sees only the first `count` items.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, _Column] = {}
        self._integers: dict[str, _Column] = {}
        """Whole numbers that a double cannot hold."""
        self._texts: dict[str, _Column] = {}
        self._codes: dict[str, int] = {}
        """Integer code of each text, so that columns contain only numbers."""

    def append(self, place: int, item: Item) -> None:
        """Append the attributes of the item at `place`. Places must be passed in ascending order."""
        for category in set(item.categories):
            self._column(self._texts, CATEGORIES).append(place, self._code(category))
        for name, value in item.attributes.items():
            if isinstance(value, str):
                self._column(self._texts, name).append(place, self._code(value))
            elif is_double(value):
                self._column(self._numbers, name).append(place, float(value))
            else:
                self._column(self._integers, name, np.int64).append(place, value)

    def numbers(self, count: int) -> frozenset[str]:
        """Return the names of the attributes that are a number on at least one of the first `count` items."""
        return _filled(self._numbers, count) | _filled(self._integers, count)

    def texts(self, count: int) -> frozenset[str]:
        """Return the names of the attributes that are a text on at least one of the first `count` items."""
        return _filled(self._texts, count) - {CATEGORIES}

    def mask(self, where: Mapping[str, Condition], count: int) -> Bool[ndarray, " count"]:
        """Return for each of the first `count` items whether it meets all conditions."""
        mask = np.ones(count, bool)
        for name, condition in where.items():
            met = np.zeros(count, bool)
            if name in self._texts and not condition.ranged:
                places, codes = self._texts[name].upto(count)
                if condition.any_of is not None:
                    wanted = [self._codes[text] for text in condition.any_of if text in self._codes]
                    places = places[np.isin(codes, wanted)]
                met[places] = True
            if name in self._numbers and name != CATEGORIES:
                places, values = self._numbers[name].upto(count)
                met[places[condition.holds(values)]] = True
            if name in self._integers:
                places, values = self._integers[name].upto(count)
                met[places[condition.holds_exactly(values)]] = True
            mask &= met
        return mask

    def _column(self, columns: dict[str, "_Column"], name: str, dtype: type = np.float64) -> "_Column":
        if name not in columns:
            columns[name] = _Column(dtype)
        return columns[name]

    def _code(self, text: str) -> int:
        return self._codes.setdefault(text, len(self._codes))


class _Column:
    """Values of one attribute, with the places of the items that have them."""

    def __init__(self, dtype: type) -> None:
        self._places = np.empty(64, np.int64)
        self._values: ndarray = np.empty(64, dtype)
        self._count = 0

    def append(self, place: int, value: float | int) -> None:
        """Append a value without moving the values that concurrent readers use."""
        if self._count == len(self._places):
            more = np.empty_like(self._places)
            self._places = np.concatenate([self._places, more])
            self._values = np.concatenate([self._values, more.astype(self._values.dtype)])
        self._places[self._count], self._values[self._count] = place, value
        self._count += 1

    def upto(self, count: int) -> tuple[Int64[ndarray, " n"], Num[ndarray, " n"]]:
        """Return the places below `count` and their values."""
        # Read the count before the arrays. A concurrent `append` increases the count last.
        known = self._count
        places, values = self._places[:known], self._values[:known]
        end = int(np.searchsorted(places, count))
        return places[:end], values[:end]


def _filled(columns: Mapping[str, _Column], count: int) -> frozenset[str]:
    return frozenset(name for name, column in list(columns.items()) if column.upto(count)[0].size)


def write_attributes(folder: Path, items: Iterable[Item]) -> None:
    """Write the attributes and their sorted columns into `folder`; the row of an item is its position in `items`."""
    categories: list[list[str]] = []
    values: dict[str, dict[int, Any]] = {}
    for row, item in enumerate(items):
        categories.append(list(item.categories))
        for name, value in item.attributes.items():
            if isinstance(value, str):
                values.setdefault(f"{name}.text", {})[row] = value
            elif is_double(value):
                values.setdefault(f"{name}.number", {})[row] = float(value)
            else:
                values.setdefault(f"{name}.integer", {})[row] = value
    columns = [pl.Series(CATEGORIES, categories, pl.List(pl.String))]
    for name in sorted(values):
        cells = [values[name].get(row) for row in range(len(categories))]
        columns.append(pl.Series(name, cells, _DTYPES[name.rpartition(".")[2]]))
    content = BytesIO()
    pl.DataFrame(columns).write_parquet(content)
    (folder / ATTRIBUTES_FILE).write_bytes(content.getvalue())
    _write_sorted(folder, columns)


def copy_attributes(source: Path, target: Path) -> None:
    """Take over the attributes of a generation; sort the columns that an earlier version of rcml left unsorted."""
    link_or_copy(source / ATTRIBUTES_FILE, target / ATTRIBUTES_FILE)
    if (source / SORTED_DIR).is_dir():
        take_over_folder(source / SORTED_DIR, target / SORTED_DIR)
    else:
        path = source / ATTRIBUTES_FILE
        with decoding(path), open_plain(path, source) as file:
            _write_sorted(target, pl.read_parquet(file).get_columns())


def _write_sorted(folder: Path, columns: Sequence[pl.Series]) -> None:
    (folder / SORTED_DIR).mkdir()
    for place, column in enumerate(columns):
        SortedColumn.of(column).save(folder / SORTED_DIR, place)


def _kind(column: str) -> ColumnKind:
    match column.rpartition(".")[2]:
        case "number":
            return "number"
        case "integer":
            return "integer"
    return "text"
