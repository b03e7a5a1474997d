"""Ready-made edges and the descriptions of their relations, as an alternative to an interaction log."""

from pathlib import Path

import polars as pl

from model.data.files.row_ledger import RowLedger
from model.data.files.table_reader import column_names, read_strings, table_files
from model.errors import InputError


def read_edges(path: Path) -> pl.DataFrame:
    """Read ready-made edges: item_a, item_b, relation (texts).

    Raises:
        InputError: the file or a column is missing, or a row has an empty cell.
    """
    return _read(path, ("item_a", "item_b", "relation"))


def read_relation_texts(path: Path) -> dict[str, str]:
    """Read relation texts, and return a map from relation IDs to descriptions.

    Raises:
        InputError: the file or a column is missing, a cell is empty, or an ID or a description is repeated.
    """
    table = _read(path, ("relation", "description"))
    for column in table.columns:
        repeated = table.filter(pl.col(column).is_duplicated())
        if len(repeated):
            raise InputError(
                f"{path}: {column} {repeated[column][0]!r} occurs more than once. "
                "Give every relation a unique ID and a unique description."
            )
    return dict(table.iter_rows())


def _read(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    """Read `columns` of a small table, every cell of which is needed."""
    frames = []
    for file in table_files(path):
        present = column_names(file)
        for column in columns:
            if column not in present:
                raise InputError(
                    f"{file} has no column {column!r}. Add it, or rename one of the existing columns: "
                    f"{', '.join(present)}."
                )
        ledger = RowLedger(file)
        frames += list(read_strings(file, ledger, {column: (column,) for column in columns}))
        if ledger.skipped:
            raise InputError(f"{ledger.summary()}. Correct the file.")
    table = pl.concat(frames) if frames else pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    if not len(table):
        raise InputError(f"{path} has no rows. Check that it is the right file.")
    empty = table.with_row_index("row", 1).filter(pl.any_horizontal(pl.col(columns).is_null()))
    if len(empty):
        raise InputError(f"{path}, row {empty['row'][0]}: a cell of {', '.join(columns)} is empty. Fill it.")
    return table
