"""Atomic files of RecBole (Zhao et al. 2021, doi 10.1145/3459637.3482016): `.item` and `.inter`.

Cells are separated by tabs, and the header gives the type of each column, as in `title:token_seq`. A `token_seq`
separates its tokens with blanks. The names of the columns are free, so the usual ones are tried and the choice is
noted; `--columns` states it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from model.data.files.csv_file import CsvDialect
from model.data.files.row_ledger import RowLedger
from model.data.files.table_reader import column_names
from model.data.prepare_config import ColumnType
from model.errors import InputError

from .source import LOG_NAMES, LogColumns, RawRow, Source, one_file
from .usual_names import LOG_PREFIX, USUAL_NAMES, columns_remedy

_QUOTED = re.compile(r"""(?<![\w'"])(?:'([^']+)'|"([^"]+)")(?![\w'"])""")

_DIALECT = CsvDialect("\t", quotes=False)


@dataclass
class RecBole(Source):
    """Items and interactions of one data set. `columns` maps names of rcml to those in the files, without types."""

    columns: Mapping[str, str] = field(default_factory=dict)

    item_names: ClassVar[tuple[str, ...]] = ("*.item",)
    log_names: ClassVar[tuple[str, ...]] = ("*.inter",)

    def find_items(self) -> None:
        """Find the one file of items."""
        self.item_files = one_file(self.folder, *self.item_names)

    def item_dialect(self, path: Path) -> CsvDialect | None:
        """Return tabs without quotation marks."""
        return _DIALECT

    def log_dialect(self, path: Path) -> CsvDialect | None:
        """Return tabs without quotation marks."""
        return _DIALECT

    @cached_property
    def _chosen(self) -> dict[str, str]:
        """Name of the column in the files of items, for each column of rcml that they have."""
        chosen: dict[str, str] = {}
        for path in self.item_files:
            headers = column_names(path, _DIALECT)
            found = self._choose(path, headers, ("item_id", "title", "description", "categories", "images"))
            self.remarks[path].append(_told(found))
            chosen |= found
        return chosen

    def _choose(self, path: Path, headers: list[str], names: tuple[str, ...]) -> dict[str, str]:
        """Choose the column of each of `names` among `headers`: the stated one, otherwise the most usual one.

        Raises:
            InputError: a stated column does not exist, or there is none for the ID of items or users.
        """
        bare = {header.rpartition(":")[0].strip() or header: header for header in headers}
        lowered = {name.lower(): header for name, header in reversed(bare.items())}
        found: dict[str, str] = {}
        for name in names:
            mine = self.columns.get(f"{LOG_PREFIX}{name}") if names == LOG_NAMES else None
            stated = (
                mine or self.columns.get(name) or (self.columns.get("image") if name == "images" else None)
            )
            if stated in bare:
                found[name] = bare[stated]
            elif stated is not None and name != "item_id":  # whose name may differ between the two files
                raise InputError(
                    f"{path} has no column {stated!r}, which --columns maps to {name}. "
                    f"{columns_remedy(name, bare, stated)}"
                )
            else:
                usual = next((lowered[one] for one in USUAL_NAMES[name] if one in lowered), None)
                if usual is not None and usual not in found.values():
                    found[name] = usual
        for name in ("user_id", "item_id"):
            if name in names and name not in found:
                raise InputError(
                    f"{path} has no column that is known to be the {name}. {columns_remedy(name, bare)}"
                )
        return found

    def items(self) -> Iterator[RawRow]:
        """Yield the rows of items, after their columns were chosen."""
        assert self._chosen is not None
        return super().items()

    def item(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return an item; sequences are lists, and all other columns are attributes."""
        own = {header: name for name, header in self._chosen.items()}
        cells: dict[str, Any] = {}
        for header, cell in row.items():
            name, _, kind = header.rpartition(":")
            mine = own.get(header)
            listed = mine in ("categories", "images") or (mine is None and kind.strip().endswith("_seq"))
            named = mine or name.strip() or header
            if mine is None and named in self._chosen:
                continue  # another column is stated to be this one
            cells[named] = tokens(cell) if listed else cell
        return cells

    @property
    def types(self) -> dict[str, ColumnType]:  # type: ignore[override]
        """Types of attributes that the header states. A token may be any of a name, a code or a number."""
        headers = (
            header.rpartition(":") for path in self.item_files for header in column_names(path, _DIALECT)
        )
        return {name.strip(): "number" for name, _, kind in headers if kind.strip() == "float"}

    def ledger(self, path: Path) -> RowLedger:
        """Open the account of one file, and note which columns of the log were chosen."""
        account = super().ledger(path)
        if path in self.log_files:
            account.note(_told(self._log_names(path)))
        return account

    def log_columns(self, path: Path) -> LogColumns:
        """Return the columns of the interactions, as the header calls them."""
        found = self._log_names(path)
        return {name: (found[name],) if name in found else () for name in LOG_NAMES}

    def _log_names(self, path: Path) -> dict[str, str]:
        """Return the columns of a file of interactions by the names of rcml."""
        return self._choose(path, column_names(path, _DIALECT), LOG_NAMES)


def _told(columns: Mapping[str, str]) -> str:
    return "columns: " + ", ".join(f"{name} is {header}" for name, header in columns.items())


def tokens(cell: str) -> list[str]:
    """Return the tokens of a sequence: texts in quotation marks, texts between commas, or words between blanks."""
    text = cell.strip()
    quoted = [one or two for one, two in _QUOTED.findall(text)]
    if quoted and not re.sub(r"[\s,\[\]]", "", _QUOTED.sub("", text)):
        return quoted
    if "," in text:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text.split()
