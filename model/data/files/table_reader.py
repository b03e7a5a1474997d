"""Tables of rows from files of any format, compression and encoding.

`read_rows` returns the cells of each row under the names of the columns, and is meant for items. `read_strings` returns
a few columns as text in blocks, and is the fast path for logs of millions of rows. The suffix decides between
Parquet, JSON and delimited text; if it says nothing, the first character does.
"""

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl

from model.errors import InputError

from .csv_file import CsvDialect, CsvRecords
from .json_file import json_rows, json_strings
from .row_ledger import RowLedger
from .text_file import CONTROL_CHARACTER, SAMPLE_BYTES, TextLines, encoding_of, open_bytes, reading

COMPRESSIONS = (".gz", ".zst", ".zstd", ".bz2", ".zip")
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
CSV_SUFFIXES = (".csv", ".tsv", ".tab", ".txt", ".dat", ".data", ".item", ".inter", ".user")

BATCH_ROWS = 200_000
"""Number of rows of a batch of Parquet, and of delimited text that is read row by row."""


def table_files(path: Path) -> list[Path]:
    """Return the files that `path` names: a file, a folder of part files, or a pattern such as `part-*.csv`.

    Raises:
        InputError: there is no such file, or the folder contains none.
    """
    if path.is_file():
        return [path]
    if path.is_dir():
        tables = [file for file in files_below(path) if kind_of(file) is not None]
        if not tables:
            raise InputError(
                f"{path} contains no table. Give a folder with {', '.join(('.parquet', *JSON_SUFFIXES))} "
                "or .csv files."
            )
        return tables
    if any(character in str(path) for character in "*?["):
        found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if Path(name).is_file()]
        if found:
            return found
        raise InputError(f"no file matches {path}. Check the pattern.")
    raise InputError(f"{path} does not exist. Check the path.")


def files_below(folder: Path) -> list[Path]:
    """Return the files in `folder` and the folders below it, in the order of their names.

    Files and folders whose names begin with `.` or `_` are left out: programs keep logs and incomplete parts there. So
    is a compressed file beside which the same file is decompressed.

    Raises:
        InputError: one of the folders may not be read.
    """

    def refuse(error: OSError) -> None:
        raise InputError(
            f"{error.filename} cannot be read ({error.strerror}). Give this user the right to read it, for example "
            "with chmod -R a+rX."
        )

    found = set()
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = (name for name in folders if not name.startswith((".", "_")))
        found |= {Path(parent, name) for name in names if not name.startswith((".", "_"))}
    return sorted(
        path
        for path in found
        if path.is_file() and not (path.suffix.lower() in COMPRESSIONS and path.with_suffix("") in found)
    )


def kind_of(path: Path) -> str | None:
    """Return "parquet", "json" or "csv" by the suffix of `path` without that of its compression, or None."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    if suffix in (".parquet", ".pq"):
        return "parquet"
    if suffix in JSON_SUFFIXES:
        return "json"
    return "csv" if suffix in CSV_SUFFIXES else None


def read_rows(
    path: Path, ledger: RowLedger, dialect: CsvDialect | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the line or row number (from 1) and the cells of each row by column name.

    Cells of delimited text are `str`; an empty cell is "". Other formats keep their values. Rows that cannot be read
    are set aside in `ledger`.

    Raises:
        InputError: the file does not exist, is damaged, or is no table.
    """
    kind = _kind(path, dialect)
    if kind == "parquet":
        yield from _parquet_rows(path, ledger)
        return
    with reading(path), TextLines(path, ledger) as lines:
        if kind == "json":
            yield from json_rows(lines, ledger)
            return
        records = CsvRecords(lines, dialect or CsvDialect(), ledger)
        for line, cells in records.records():
            yield line, dict(zip(records.header, cells, strict=True))


def read_strings(
    path: Path,
    ledger: RowLedger,
    columns: Mapping[str, Sequence[str]],
    dialect: CsvDialect | None = None,
) -> Iterator[pl.DataFrame]:
    """Yield blocks of rows with `columns` as text; null for an empty cell.

    `columns` maps each new name to the names that the column may have in the file; the first that exists is taken. In
    JSON, rows may differ, so the first that has a value is taken.

    Raises:
        InputError: the file does not exist, is damaged or is no table. A missing column is a column of nulls.
    """
    names = list(dict.fromkeys(name for given in columns.values() for name in given))
    kind = _kind(path, dialect)
    blocks = _string_blocks(path, ledger, names, kind, dialect)
    # A file without rows gives one block without rows.
    empty = pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    for frame in chain([next(blocks, empty)], blocks):
        present = set(frame.columns)
        yield frame.select(
            pl.coalesce(
                *(_filled(name) for name in given if name in present), pl.lit(None, dtype=pl.String)
            ).alias(new)
            for new, given in columns.items()
        )


def column_names(path: Path, dialect: CsvDialect | None = None) -> list[str]:
    """Return the names of the columns of a file; of JSON, those of its first 100 rows."""
    ledger = RowLedger(path)
    kind = _kind(path, dialect)
    if kind == "parquet":
        with _parquet_errors(path), reading(path):
            return pl.scan_parquet(path).collect_schema().names()
    with reading(path), TextLines(path, ledger) as lines:
        if kind == "csv":
            return CsvRecords(lines, dialect or CsvDialect(), ledger).header
        rows = (row for _, (_, row) in zip(range(100), json_rows(lines, ledger), strict=False))
        return list(dict.fromkeys(name for row in rows for name in row))


def _filled(name: str) -> pl.Expr:
    """Return the column with empty text as null."""
    return pl.when(pl.col(name) != "").then(pl.col(name))


def _kind(path: Path, dialect: CsvDialect | None) -> str:
    if dialect is not None:
        return "csv"
    kind = kind_of(path)
    if kind is not None:
        return kind
    with reading(path):
        with open_bytes(path, RowLedger(path)) as file:
            sample = file.read(SAMPLE_BYTES)
        start = sample.decode(encoding_of(sample)[0], errors="replace").lstrip("\ufeff \t\r\n")
    if start.startswith("PAR1"):
        return "parquet"
    if start.startswith(("{", "[")):
        return "json"
    if not start or CONTROL_CHARACTER.search(start):
        suffixes = ", ".join((".csv", ".tsv", *JSON_SUFFIXES, ".parquet"))
        raise InputError(
            f"{path} is no table that rcml reads. Convert it to one of {suffixes}, also compressed."
        )
    return "csv"


def _string_blocks(
    path: Path, ledger: RowLedger, names: list[str], kind: str, dialect: CsvDialect | None
) -> Iterator[pl.DataFrame]:
    if kind == "parquet":
        yield from _parquet_blocks(path, ledger, names)
        return
    with reading(path), TextLines(path, ledger) as lines:
        if kind == "json":
            yield from json_strings(lines, ledger, names)
            return
        records = CsvRecords(lines, dialect or CsvDialect(), ledger)
        kept = [name for name in names if name in records.header]
        if not records.header:
            return  # an empty file
        if not kept:
            raise InputError(
                f"{path} has none of the columns {', '.join(names)}. Rename the columns, or map them with --columns. "
                f"The file has: {', '.join(records.header)}."
            )
        schema = dict.fromkeys(records.header, pl.String)
        while (block := records.clean_block()) != []:
            frame = _split(block, records, kept) if block is not None else None
            if frame is None:
                if block is not None:
                    records.put_back(block)
                rows = [cells for _, cells in records.records_of_block()]
                frame = pl.DataFrame(list(zip(*rows, strict=True)) or None, schema).select(kept)
            yield frame


def _split(block: list[str], records: CsvRecords, kept: list[str]) -> pl.DataFrame | None:
    """Split lines without quotation marks into cells; None if one has another number of cells than the header."""
    lines = pl.Series("line", block).str.strip_prefix("\ufeff").str.strip_chars_end("\r\n")
    lines = lines.filter(lines.str.strip_chars(records.blanks) != "")
    if not len(lines):
        return pl.DataFrame(schema=dict.fromkeys(kept, pl.String))
    separators = lines.str.count_matches(records.separator, literal=True)
    if not (separators == len(records.header) - 1).all() or records.header_again(lines):
        return None
    records.ledger.rows += len(lines)
    cells = lines.str.split_exact(records.separator, len(records.header) - 1)
    return cells.struct.rename_fields(records.header).struct.unnest().select(kept)


def _parquet_rows(path: Path, ledger: RowLedger) -> Iterator[tuple[int, dict[str, Any]]]:
    for frame in _parquet_slices(path, ledger, None):
        first = ledger.rows - len(frame) + 1
        yield from enumerate(frame.iter_rows(named=True), first)


def _parquet_blocks(path: Path, ledger: RowLedger, names: list[str]) -> Iterator[pl.DataFrame]:
    for frame in _parquet_slices(path, ledger, names):
        yield frame.select(_as_text(name, frame.schema[name]) for name in frame.columns)


def _as_text(name: str, kind: pl.DataType) -> pl.Expr:
    """Return a column of Parquet as text, as `as_id` does for one value."""
    column = pl.col(name)
    if kind.is_nested():
        return pl.lit(None, pl.String).alias(name)
    if not kind.is_float():
        return column.cast(pl.String, strict=False)
    whole = column.round() == column
    return (
        pl.when(whole & (column.abs() < 2**63))
        .then(column.cast(pl.Int64, strict=False).cast(pl.String))
        .when(column.is_finite())
        .then(column.cast(pl.String))
        .alias(name)
    )


def _parquet_slices(path: Path, ledger: RowLedger, names: list[str] | None) -> Iterator[pl.DataFrame]:
    with _parquet_errors(path), reading(path):
        scan = pl.scan_parquet(path)
        if names is not None:
            present = [name for name in names if name in scan.collect_schema()]
            if not present:
                raise InputError(
                    f"{path} has none of the columns {', '.join(names)}. Rename the columns, or map them with "
                    f"--columns. The file has: {', '.join(scan.collect_schema())}."
                )
            scan = scan.select(present)
        total = scan.select(pl.len()).collect().item()
        for start in range(0, total, BATCH_ROWS):
            frame = scan.slice(start, BATCH_ROWS).collect()
            frame = frame.with_columns(map(_decoded, frame.select(pl.col(pl.Binary))))
            ledger.rows += len(frame)
            yield frame


def _decoded(column: pl.Series) -> pl.Series:
    """Return a column of bytes as text, which some programs write so. What is no UTF-8 is null."""
    try:
        return column.cast(pl.String)
    except pl.exceptions.PolarsError:
        return pl.Series(column.name, [_text_of(content) for content in column], dtype=pl.String)


def _text_of(content: bytes | None) -> str | None:
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        return None


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    """Turn errors of polars into an `InputError` that names `path`."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is no readable Parquet file: {reason}. Write it again.") from None
