"""Tables with rcml's own column names, or with any others by a mapping (`--columns title=product_name`)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.data.columns.lists import read_list
from model.data.files.row_ledger import RowLedger
from model.data.files.table_reader import column_names, kind_of
from model.errors import InputError

from .source import ITEM_NAMES, LOG_NAMES, LogColumns, RawRow, Source, files_of
from .usual_names import LOG_PREFIX, columns_remedy

_ALIASES: dict[str, tuple[str, ...]] = {"images": ("images", "image")}
"""Other names under which the columns of items are found without a mapping."""

_REQUIRED = ("item_id", "title")


_LISTS = ("categories", "images")

_SEPARATOR_WORDS = {"comma": ",", "tab": "\t", "semicolon": ";", "bar": "|", "slash": "/"}
"""Words for separators that are awkward on a command line."""


@dataclass
class TableSource(Source):
    """Items and a log in tables. `mapping` maps names of rcml to names in the files.

    A list column may name the separators of its texts after colons, as in `categories=path: > ` or, for a list of
    paths, `categories=paths:comma:slash`. Columns of items that are not mapped keep their names and become attributes.
    `log.item_id` maps a column of the log alone.
    """

    mapping: Mapping[str, str] = field(default_factory=dict)
    _names: dict[str, str] = field(init=False)
    _separators: dict[str, tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self._names, self._separators = {}, {}
        for name, given in self.mapping.items():
            name = "images" if name == "image" else name
            column, _, separators = given.partition(":") if name in _LISTS else (given, "", "")
            self._names[name] = column.strip()
            if separators:
                parts = separators.split(":")
                # A colon may be the separator itself.
                self._separators[name] = tuple(map(_separator, parts if all(parts) else [separators]))

    def log_columns(self, path: Path) -> LogColumns:
        """Return the columns of the log: one mapped for the log alone, otherwise a mapped one or rcml's own."""
        return {
            name: (self._names[f"{LOG_PREFIX}{name}"],)
            if f"{LOG_PREFIX}{name}" in self._names
            else tuple(dict.fromkeys((self._names.get(name, name), name)))
            for name in LOG_NAMES
        }

    def check_log(self) -> None:
        """Refuse a log without users, items or a mapped column before the long work on the items begins.

        Raises:
            InputError: a column that is needed or mapped does not exist.
        """
        super().check_log()
        for path in self.log_files:
            present = column_names(path)
            for name in LOG_NAMES:
                mapped = self._names.get(f"{LOG_PREFIX}{name}") or self._names.get(name)
                if present and mapped is not None and mapped not in present and name != "item_id":
                    own = f"{LOG_PREFIX}{name}" if f"{LOG_PREFIX}{name}" in self._names else name
                    raise InputError(
                        f"{path} has no column {mapped!r}, which --columns maps to {name}. "
                        f"{columns_remedy(own, present, mapped)}"
                    )

    def ledger(self, path: Path) -> RowLedger:
        """Open the account of one file, and note the columns of the log that are not read."""
        account = super().ledger(path)
        if path in self.log_files and kind_of(path) != "json":  # whose rows may have different columns
            read = {name for names in self.log_columns(path).values() for name in names}
            other = [name for name in column_names(path) if name not in read]
            if other:
                account.note(f"columns that are not read: {', '.join(other)}")
        return account

    def items(self) -> Iterator[RawRow]:
        """Yield the rows of all files of items.

        Raises:
            InputError: a column that is needed or mapped does not exist.
        """
        for path in self.item_files:
            self._check(path, column_names(path))
        yield from super().items()

    def item(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the cells under the names of rcml; lists with a stated separator are split."""
        taken = {}
        cells: dict[str, Any] = {}
        for name in ITEM_NAMES:
            names = (self._names[name],) if name in self._names else _ALIASES.get(name, (name,))
            column = next((given for given in names if given in row), None)
            if column is None:
                continue
            taken[column] = name
            separators = self._separators.get(name)
            cells[name] = read_list(row[column], separators) if separators else row[column]
        # A column may serve twice, such as a name that is the ID, but an attribute must not hide an item's own column.
        return {
            **{name: value for name, value in row.items() if name not in taken and name not in cells},
            **cells,
        }

    def _check(self, path: Path, columns: list[str]) -> None:
        if not columns and len(self.item_files) > 1:
            return
        if not columns:
            raise InputError(f"{path} is empty. Check that it is the right file.")
        for name in _REQUIRED:
            column = self._names.get(name, name)
            if column not in columns:
                raise InputError(
                    f"{path} has no column {column!r}. {columns_remedy(name, columns, self._names.get(name))}"
                )
        for name, column in self._names.items():
            if column not in columns and name in ITEM_NAMES and name not in LOG_NAMES:
                raise InputError(
                    f"{path} has no column {column!r}, which --columns maps to {name}. "
                    f"{columns_remedy(name, columns, column)}"
                )


def _separator(given: str) -> str:
    """Return the separator that is given as a word or as it stands."""
    bare = given.strip('"').strip() or given.strip('"')
    return _SEPARATOR_WORDS.get(bare, bare)


def table_source(items: list[Path], log: list[Path], mapping: Mapping[str, str]) -> TableSource:
    """Open tables of items and a log. A path may be a file, a folder of part files or a pattern.

    Raises:
        InputError: a file does not exist.
    """
    return TableSource(files_of(items), files_of(log), mapping=mapping)
