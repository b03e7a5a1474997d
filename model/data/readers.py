"""Readers of raw files (.jsonl, .parquet, .csv), which return tables with known columns and types.

Every error message names the file, the column or row, and the remedy. Only `prepare.py` uses this module.
"""

from pathlib import Path

import polars as pl

from model.errors import InputError

ITEM_COLUMNS = ("item_id", "title", "description", "categories", "image")
"""Columns of an item that rcml reads itself; every other column is an attribute."""


def read_items(path: Path) -> pl.DataFrame:
    """Read items: item_id, title, description, image (strings), categories (list of strings), and attributes.

    `description` and `image` may be absent or empty. In .csv, categories are separated by `|`. Every other column
    of numbers, text, dates or booleans is an attribute, which is null for an item without a value.

    Raises:
        InputError: the file or a column is missing or invalid, or an item_id is repeated or empty.
    """
    table = _read(path, required=("item_id", "title", "categories"))
    if not table.schema["categories"].is_nested():
        table = table.with_columns(_texts(table, path, "categories")["categories"].str.split("|"))
    for column in ("description", "image"):
        if column not in table.columns:
            table = table.with_columns(pl.lit("").alias(column))
    texts = _texts(table, path, "item_id", "title", "description", "image")
    names = _cast(table["categories"], pl.List(pl.String), path)
    stripped = pl.lit(names).list.eval(pl.element().str.strip_chars()).fill_null([])
    kept = stripped.list.drop_nulls().list.filter(pl.element() != "")
    table = texts.select(
        "item_id",
        pl.col("title", "description").fill_null(""),
        kept.alias("categories"),
        pl.col("image").fill_null(""),
        *_attributes(table),
    )
    if table["item_id"].is_null().any() or (table["item_id"] == "").any():
        row = table.with_row_index().filter(pl.col("item_id").is_null() | (pl.col("item_id") == ""))["index"][
            0
        ]
        raise InputError(f"{path}, row {row + 1}: item_id is empty. Give every item a unique ID.")
    repeated = table.filter(pl.col("item_id").is_duplicated())
    if len(repeated):
        raise InputError(
            f"{path}: item_id {repeated['item_id'][0]!r} occurs more than once. Give every item a unique ID."
        )
    return table


def read_interactions(path: Path) -> pl.DataFrame:
    """Read interactions: user_id, item_id (strings), rating (float or null), timestamp (float or null).

    Raises:
        InputError: the file or a column is missing, or a rating or timestamp is not a number.
    """
    table = _read(path, required=("user_id", "item_id"))
    for column in ("rating", "timestamp"):
        if column not in table.columns:
            table = table.with_columns(pl.lit(None, dtype=pl.Float64).alias(column))
    try:
        table = table.select(
            pl.col("user_id").cast(pl.String),
            pl.col("item_id").cast(pl.String),
            pl.col("rating").cast(pl.Float64),
            pl.col("timestamp").cast(pl.Float64),
        )
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"{path}: every rating and timestamp must be a number or empty. Correct this column: "
            f"{str(error).splitlines()[0]}"
        ) from None
    return table.drop_nulls(["user_id", "item_id"])


def read_edges(path: Path) -> pl.DataFrame:
    """Read ready-made edges: item_a, item_b, relation (strings).

    Raises:
        InputError: the file or a column is missing or invalid.
    """
    columns = ("item_a", "item_b", "relation")
    return _texts(_read(path, required=columns), path, *columns).drop_nulls()


def read_relation_texts(path: Path) -> dict[str, str]:
    """Read relation texts, and return a map from relation IDs to descriptions.

    Raises:
        InputError: the file or a column is missing or invalid, or an ID or a description is repeated.
    """
    table = _read(path, required=("relation", "description"))
    table = _texts(table, path, "relation", "description").drop_nulls()
    for column in table.columns:
        repeated = table.filter(pl.col(column).is_duplicated())
        if len(repeated):
            raise InputError(
                f"{path}: {column} {repeated[column][0]!r} occurs more than once. "
                "Give every relation a unique ID and a unique description."
            )
    return dict(table.iter_rows())


def _attributes(table: pl.DataFrame) -> list[pl.Series]:
    """Return the attribute columns: all columns of supported types that rcml does not read itself."""
    found = []
    for column in table.drop(ITEM_COLUMNS).iter_columns():
        if column.dtype.is_float():
            found.append(column.cast(pl.Float64).fill_nan(None))
        elif column.dtype.is_integer() or column.dtype in (pl.Boolean, pl.String):
            found.append(column)
        elif column.dtype.is_decimal():
            found.append(column.cast(pl.Float64))
        elif column.dtype.is_temporal() or column.dtype in (pl.Categorical, pl.Enum):
            found.append(column.cast(pl.String))
    return found


def _texts(table: pl.DataFrame, path: Path, *columns: str) -> pl.DataFrame:
    """Return the named columns as strings."""
    return pl.DataFrame([_cast(table[column], pl.String, path) for column in columns])


def _cast(column: pl.Series, to: pl.DataType | type[pl.DataType], path: Path) -> pl.Series:
    try:
        return column.cast(to)
    except pl.exceptions.PolarsError:
        raise InputError(
            f"{path}: the column {column.name} has type {column.dtype}, but {to} is needed. "
            f"Convert its values, such as {column.drop_nulls().head(1).to_list()[0]!r}."
        ) from None


def _read(path: Path, required: tuple[str, ...]) -> pl.DataFrame:
    if not path.is_file():
        raise InputError(f"{path} does not exist. Check the path.")
    try:
        match path.suffix:
            case ".jsonl" | ".ndjson":
                table = pl.read_ndjson(path, infer_schema_length=None)
            case ".parquet":
                table = pl.read_parquet(path)
            case ".csv":
                ids = dict.fromkeys(("item_id", "user_id", "item_a", "item_b", "relation"), pl.String)
                table = pl.read_csv(path, infer_schema_length=None, schema_overrides=ids)
            case _:
                raise InputError(f"{path} has an unsupported format. Convert it to .jsonl, .parquet or .csv.")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            f"{path} cannot be read: {str(error).splitlines()[0]}. Check that the file is complete, has the suffix of "
            "its format and, if it is text, is encoded in UTF-8."
        ) from None
    for column in required:
        if column not in table.columns:
            raise InputError(
                f"{path} has no column {column!r}. Add it, or rename one of the existing columns: "
                f"{', '.join(table.columns)}."
            )
    if not len(table):
        raise InputError(f"{path} has no rows. Check that it is the right file.")
    return table
