"""What every source offers: raw rows of items, and the log as batches of texts.

A source knows the files, names and layout of one format. What is the same for all of them happens later: clean texts,
numbers, types (`model/data/item_table.py`), ratings and times (`model/data/log_table.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from model.data.files.csv_file import CsvDialect
from model.data.files.row_ledger import RowLedger
from model.data.files.table_reader import kind_of, read_rows, read_strings, table_files
from model.errors import InputError

LogColumns = Mapping[str, Sequence[str]]
"""For each of user_id, item_id, rating and timestamp, the names that its column may have, best first."""

RawRow = tuple[RowLedger, int, Mapping[str, Any]]
"""Raw row of an item: the ledger of its file, its line, and its cells."""


class SkipRow(Exception):
    """Signal that a row is no item of the source, with the reason."""


@dataclass
class Source:
    """Files of items and of the log. Subclasses say how a row becomes an item and where the files lie.

    `ledgers` contains one account for each file that was read so far.
    """

    item_files: list[Path]
    log_files: list[Path]
    ledgers: list[RowLedger] = field(default_factory=list)

    item_dialect: CsvDialect | None = None
    log_dialect: CsvDialect | None = None
    log_columns: LogColumns = field(
        default_factory=lambda: {
            "user_id": ("user_id",),
            "item_id": ("item_id",),
            "rating": ("rating",),
            "timestamp": ("timestamp",),
        }
    )

    @property
    def untyped(self) -> bool:
        """Tell whether the files of items are delimited text, whose cells have no types."""
        return any(kind_of(path) not in ("json", "parquet") for path in self.item_files)

    def ledger(self, path: Path) -> RowLedger:
        """Open the account of one file."""
        account = RowLedger(path)
        self.ledgers.append(account)
        return account

    def items(self) -> Iterator[RawRow]:
        """Yield the rows of all files of items; rows that are none are set aside."""
        for path in self.item_files:
            ledger = self.ledger(path)
            for line, row in read_rows(path, ledger, self.item_dialect):
                try:
                    item = self.item(row)
                except SkipRow as skipped:
                    ledger.skip(str(skipped), line, str(row)[:200])
                    continue
                yield ledger, line, item
            if not ledger.kept:
                raise InputError(
                    f"{path} has no rows that can be read. {ledger.summary() or 'It is empty'}. "
                    "Check that it is the right file."
                )

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
            for batch in read_strings(path, ledger, self.log_columns, self.log_dialect):
                yield ledger, self.batch(batch)
            if not ledger.kept:
                raise InputError(
                    f"{path} has no rows that can be read. {ledger.summary() or 'It is empty'}. "
                    "Check that it is the right file."
                )

    def batch(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Return a batch of the log with what is peculiar to the source changed."""
        return batch


def files_of(paths: Sequence[Path]) -> list[Path]:
    """Return the files that all `paths` name: files, folders of part files, or patterns."""
    return [file for path in paths for file in table_files(path)]


def found_files(folder: Path, *patterns: str, needed: bool = True) -> list[Path]:
    """Return the files of `folder` that match the first of `patterns` with any match, in the order of their names.

    Upper and lower case are the same, and every compression may follow.

    Raises:
        InputError: the folder does not exist, or no file matches and one is `needed`.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder. Give the folder of the downloaded files.")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    for pattern in patterns:
        matching = [path for path in files if _matches(path.name.lower(), pattern.lower())]
        if matching:
            return matching
    if needed:
        raise InputError(
            f"{folder} contains no {' or '.join(patterns)} (also compressed: .gz, .zst, .bz2, .zip). "
            "Download it into the folder, or name the files with --items and --interactions."
        )
    return []


def _matches(name: str, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    return any(fnmatchcase(name, pattern + end) for end in ("", ".gz", ".zst", ".bz2", ".zip"))
