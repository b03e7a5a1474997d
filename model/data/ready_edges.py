"""Ready-made edges and the descriptions of their relations, as an alternative to an interaction log."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from model.data.files.row_ledger import RowLedger
from model.data.files.table_reader import column_names, read_strings, table_files
from model.errors import InputError
from model.records import INTRA_RELATION


def read_edges(path: Path) -> pl.DataFrame:
    """Read ready-made edges: item_a, item_b, relation (texts).

    Raises:
        InputError: the file or a column is missing, or a row has an empty cell.
    """
    return _read(path, {name: (name,) for name in ("item_a", "item_b", "relation")})


def read_relation_texts(path: Path) -> dict[str, str]:
    """Read relation texts, and return a map from relation IDs to descriptions.

    `relations.json` of prepared data is also accepted. Its relation of an item with itself is left out.

    Raises:
        InputError: the file or a column is missing, a cell is empty, an ID or a description is repeated, or the ID of
            the relation of an item with itself has another text.
    """
    table = _read(path, {"relation": ("relation", "relation_id"), "description": ("description",)})
    for column in table.columns:
        repeated = table.filter(pl.col(column).is_duplicated())
        if len(repeated):
            raise InputError(
                f"{path}: {column} {repeated[column][0]!r} occurs more than once. "
                "Give every relation a unique ID and a unique description."
            )
    texts: dict[str, str] = dict(table.iter_rows())
    if texts.pop(INTRA_RELATION.relation_id, INTRA_RELATION.description) != INTRA_RELATION.description:
        raise InputError(
            f"{path}: the relation ID {INTRA_RELATION.relation_id!r} is reserved for the relation of an item with "
            f"itself, whose text is always {INTRA_RELATION.description!r}. Choose another ID."
        )
    return texts


def read_described_edges(edges: Path, relation_texts: Path) -> tuple[pl.DataFrame, dict[str, str]]:
    """Read ready-made edges and the texts of their relations.

    Raises:
        InputError: a file is invalid, or a relation of the edges has no text.
    """
    texts = read_relation_texts(relation_texts)
    given = read_edges(edges)
    unknown = given.filter(~pl.col("relation").is_in(list(texts)))
    if len(unknown):
        raise InputError(
            f"{edges}: relation {unknown['relation'][0]!r} has no description in {relation_texts}. Add a row for it."
        )
    return given, texts


def _read(path: Path, columns: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    """Read a small table, every cell of which is needed; `columns` maps its columns to their possible names."""
    frames = []
    for file in table_files(path):
        present = column_names(file)
        for column, names in columns.items():
            if not set(names) & set(present):
                raise InputError(
                    f"{file} has no column {column!r}. Add it, or rename one of the existing columns: "
                    f"{', '.join(present)}."
                )
        ledger = RowLedger(file)
        frames += list(read_strings(file, ledger, columns))
        if ledger.skipped:
            raise InputError(f"{ledger.summary()}. Correct the file.")
    table = pl.concat(frames) if frames else pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    if not len(table):
        raise InputError(f"{path} has no rows. Check that it is the right file.")
    empty = table.with_row_index("row", 1).filter(pl.any_horizontal(pl.col(table.columns).is_null()))
    if len(empty):
        raise InputError(f"{path}, row {empty['row'][0]}: a cell of {', '.join(columns)} is empty. Fill it.")
    return table
