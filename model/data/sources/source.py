"""What every source offers: raw rows of items, and the log as batches of texts.

A source knows the files, names and layout of one format. What is the same for all of them happens later: clean texts,
numbers, types (`model/data/item_table.py`), ratings and times (`model/data/log_table.py`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from model.data.files.csv_file import CsvDialect
from model.data.files.literals import as_text
from model.data.files.row_ledger import RowLedger
from model.data.files.table_reader import (
    COMPRESSIONS,
    column_names,
    files_below,
    kind_of,
    read_rows,
    read_strings,
    table_files,
)
from model.data.prepare_config import ColumnType
from model.errors import InputError

from .usual_names import LOG_PREFIX, columns_option

LogColumns = Mapping[str, Sequence[str]]
"""For each of user_id, item_id, rating and timestamp, the names that its column may have, best first."""

RawRow = tuple[RowLedger, int, Mapping[str, Any]]
"""Raw row of an item: the ledger of its file, its line, and its cells."""

ITEM_NAMES = ("item_id", "title", "description", "categories", "images")

LOG_NAMES = ("user_id", "item_id", "rating", "timestamp")

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2")
"""Suffixes of downloads that have to be unpacked."""

OWN_LOG_COLUMNS: LogColumns = {name: (name,) for name in LOG_NAMES}


class SkipRow(Exception):
    """Signal that a row is no item of the source, with the reason, the value that shows it, and its ID."""

    def __init__(self, reason: str, example: str, item_id: object) -> None:
        super().__init__(reason)
        self.example = example
        self.item_id = str(item_id or "")


@dataclass
class Source:
    """Files of items and of the log. Subclasses say how a row becomes an item and where the files lie.

    `folder` is searched for the further files of the format, such as a map of IDs, and `pictures` is the folder that
    the paths of pictures are relative to. `ledgers` contains one account for each file that was read so far, and
    `remarks` what is noted in them before a file is read. `changes` counts what the source changed in the items, and
    `skipped_items` has the IDs of those that it set aside. `advice` says in sentences what may be wrong in the files.
    """

    item_files: list[Path] = field(default_factory=list)
    log_files: list[Path] = field(default_factory=list)
    folder: Path = Path()
    pictures: Path = Path()
    ledgers: list[RowLedger] = field(default_factory=list)
    remarks: dict[Path, list[str]] = field(default_factory=lambda: defaultdict(list))
    changes: Counter[str] = field(default_factory=Counter)
    skipped_items: set[str] = field(default_factory=set)
    advice: list[str] = field(default_factory=list)

    item_names: ClassVar[tuple[str, ...]] = ()
    """Patterns of the names of the files of items, best first."""

    log_names: ClassVar[tuple[str, ...]] = ()
    """Patterns of the names of the files of the log, best first."""

    types: ClassVar[Mapping[str, ColumnType]] = {}
    """Types of attributes that the format documents."""

    @property
    def untyped(self) -> bool:
        """Tell whether the files of items are delimited text, whose cells have no types."""
        return any(kind_of(path) not in ("json", "parquet") for path in self.item_files)

    def find_items(self) -> None:
        """Find the files of items in `folder`.

        Raises:
            InputError: there are none.
        """
        self.item_files = found_files(self.folder, *self.item_names)

    def find_log(self) -> None:
        """Find the files of the log in `folder`.

        Raises:
            InputError: there are none.
        """
        self.log_files = found_files(self.folder, *self.log_names)

    def item_dialect(self, path: Path) -> CsvDialect | None:
        """Return how a file of items separates its cells; None: it is found by looking."""
        return None

    def log_dialect(self, path: Path) -> CsvDialect | None:
        """Return how a file of the log separates its cells; None: it is found by looking."""
        return None

    def log_columns(self, path: Path) -> LogColumns:
        """Return the columns to read from a file of the log. `batch` takes those that are not rcml's away."""
        return OWN_LOG_COLUMNS

    def check_log(self) -> None:
        """Refuse a log without users or items before the long work on the items begins.

        Raises:
            InputError: a file has no column of users or of items.
        """
        for path in self.log_files:
            present, columns = column_names(path, self.log_dialect(path)), self.log_columns(path)
            others = [name for name in present if not any(name in known for known in columns.values())]
            for name in ("user_id", "item_id"):
                if present and not set(columns[name]) & set(present):
                    # The items have a column of their own for the ID, so only that of the log is named.
                    own = f"{LOG_PREFIX}{name}" if name == "item_id" else name
                    raise InputError(
                        f"{path} has no column {' or '.join(map(repr, columns[name]))}. Check that it is the right "
                        f"file, or name its column with --source table "
                        f"{columns_option(own, others, columns[name][0])}. The file has: {', '.join(present)}."
                    )

    def ledger(self, path: Path) -> RowLedger:
        """Open the account of one file."""
        account = RowLedger(path, notes=list(self.remarks.get(path, ())))
        self.ledgers.append(account)
        return account

    def items(self) -> Iterator[RawRow]:
        """Yield the rows of all files of items; rows that are none are set aside."""
        for path in self.item_files:
            ledger = self.ledger(path)
            for line, row in read_rows(path, ledger, self.item_dialect(path)):
                try:
                    item = self.item(row)
                except SkipRow as skipped:
                    ledger.skip(str(skipped), line, skipped.example)
                    self.skipped_items.add(skipped.item_id)
                    continue
                yield ledger, line, item
            refuse_empty(ledger, self.item_files)

    def item(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the cells of one item under the names of rcml.

        Raises:
            SkipRow: the row is no item.
        """
        return row

    def interactions(self) -> Iterator[tuple[RowLedger, pl.DataFrame]]:
        """Yield the log as batches of user_id, item_id, rating and timestamp, all texts."""
        for path in self.log_files:
            ledger = self.ledger(path)
            for batch in read_strings(path, ledger, self.log_columns(path), self.log_dialect(path)):
                yield ledger, self.batch(batch, ledger)
            refuse_empty(ledger, self.log_files)

    def batch(self, batch: pl.DataFrame, ledger: RowLedger) -> pl.DataFrame:
        """Return a batch of the log with what is peculiar to the source changed."""
        return batch


def refuse_empty(ledger: RowLedger, files: Sequence[Path] = ()) -> None:
    """Refuse a file of which no row was kept. One of several `files` may be empty, as parts of a table are.

    Raises:
        InputError: no row was kept.
    """
    if not ledger.rows and len(files) > 1:
        ledger.note("it is empty")
    elif not ledger.kept:
        raise InputError(
            f"{ledger.path} has no rows that can be read. {ledger.summary() or 'It is empty'}. "
            "Check that it is the right file."
        )


def set_aside(
    batch: pl.DataFrame, ledger: RowLedger, wrong: pl.Expr, reason: str, shown: str
) -> pl.DataFrame:
    """Return `batch` without the rows that are `wrong`, which are counted with the first value of column `shown`."""
    marked = batch.with_columns(wrong.fill_null(value=False).alias("wrong"))
    found = marked.filter("wrong")
    if not len(found):
        return batch
    ledger.skip(reason, 0, str(found[shown][0] or ""), count=len(found))
    return marked.filter(~pl.col("wrong")).drop("wrong")


def scalar(value: object) -> object:
    """Return a cell that should be one value; a list or object is returned as text, so that it is counted as wrong."""
    return as_text(value) if isinstance(value, dict | list | tuple) else value


def attributes(row: Mapping[str, Any], *names: str) -> dict[str, object]:
    """Return the cells of `names` that `row` has, each as one value."""
    return {name: scalar(row[name]) for name in names if name in row}


def files_of(paths: Sequence[Path]) -> list[Path]:
    """Return the files that all `paths` name: files, folders of part files, or patterns."""
    return list(dict.fromkeys(file for path in paths for file in table_files(path)))


def found_files(folder: Path, *patterns: str, needed: bool = True) -> list[Path]:
    """Return the files of `folder` that match the first of `patterns` with any match, in the order of their names.

    Upper and lower case are the same, and every compression may follow.

    Raises:
        InputError: the folder does not exist or may not be read, or no file matches and one is `needed`.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder. Give the folder of the downloaded files.")
    files = files_below(folder)
    for pattern in patterns:
        matching = [path for path in files if fnmatchcase(bare_name(path), pattern.lower())]
        if matching:
            return matching
    if needed:
        archive = next((path for path in files if path.name.lower().endswith(ARCHIVES)), None)
        remedy = f"Unpack {archive}" if archive else "Download it into the folder"
        raise InputError(
            f"{folder} contains no {' or '.join(patterns)} (also compressed: .gz, .zst, .bz2, .zip). {remedy}, or name "
            "the files with --items and --interactions."
        )
    return []


def one_file(folder: Path, *patterns: str) -> list[Path]:
    """Return the one file of `folder` that matches one of `patterns`.

    Raises:
        InputError: there is none, or there are several, whose IDs need not mean the same.
    """
    files = [path for pattern in patterns for path in found_files(folder, pattern, needed=False)]
    if not files:
        return found_files(folder, *patterns)
    if len(files) > 1:
        raise InputError(
            f"{folder} contains {files[0].relative_to(folder)} and {files[1].relative_to(folder)}, which may be of "
            "different data sets. Give the folder of one, or name the files with --items and --interactions."
        )
    return files


def bare_name(path: Path) -> str:
    """Return the name of a file in lower case, without the suffixes of its compression."""
    name = path.name.lower()
    while name.endswith(COMPRESSIONS):
        name = name[: name.rindex(".")]
    return name
