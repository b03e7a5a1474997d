"""Type of each attribute column, decided from all its values, and told with the reason and examples."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from model.data.files.literals import as_text
from model.data.prepare_config import ColumnType

from .numbers import is_missing, read_numbers

MIN_NUMBER_SHARE = 0.9
"""Minimum share of numbers among the values of a column of numbers; the others become null and are counted."""

CODE_NAMES = frozenset(
    {
        "ean",
        "ean13",
        "gtin",
        "gtin13",
        "gtin14",
        "upc",
        "isbn",
        "isbn10",
        "isbn13",
        "barcode",
        "sku",
        "mpn",
        "hs_code",
        "zip",
        "zipcode",
        "zip_code",
        "postcode",
        "postal_code",
        "plz",
        "phone",
    }
)
"""Names of columns whose digits are a code, so that they stay texts."""

_PRICE = re.compile(r"(?i)price|cost|amount|msrp|preis|prix|precio")

_BOOLEANS = {"true": True, "false": False}

_STATED_BOOLEANS = {
    **_BOOLEANS, "1": True, "0": False, "yes": True, "no": False, "y": True, "n": False, "t": True, "f": False,
}  # fmt: skip
"""Values of a column that is known to be of booleans, in lower case."""


@dataclass(frozen=True)
class TypedColumn:
    """Values of an attribute column, with its type, how that was decided, and three examples of raw values.

    `unread` counts the values that do not fit the type and are null, with examples.
    """

    values: pl.Series
    type: ColumnType
    decision: str
    examples: tuple[str, ...]
    unread: int = 0
    unread_examples: tuple[str, ...] = ()


def typed_column(
    name: str, cells: Sequence[object], stated: ColumnType | None = None, untyped: bool = True
) -> TypedColumn:
    """Decide the type of the column `name` from its cells and convert them; `stated` overrides the decision.

    `untyped` says that the cells come from a format without types (CSV). In JSON and Parquet, a column of texts stays
    one even if it contains digits, except for prices.

    Texts with leading zeros, and columns such as `ean`, stay texts, and so do codes such as `77E3` among integers. A
    column is of numbers if at least `MIN_NUMBER_SHARE` of its values are. Integers stay exact up to 64 bits; larger
    ones are texts, and so are those above 2^53 in a column that also has fractions.
    """
    texts = pl.Series(name, [as_text(cell) for cell in cells], dtype=pl.String)
    missing = is_missing(texts)
    digits_count = (
        untyped or _PRICE.search(name) or any(not isinstance(c, str) for c in cells if c is not None)
    )
    texts = texts.str.strip_chars().set(missing, None)
    filled = texts.drop_nulls()
    examples = tuple(filled.unique(maintain_order=True).head(3))
    decided, reason = (stated, "stated") if stated else _decide(name, filled, bool(digits_count))
    values = _converted(texts, decided)
    unread = texts.filter(values.is_null() & texts.is_not_null())
    if decided == "text":
        # A text keeps what stands in the file, also "N/A": only an empty cell has no value.
        values = pl.Series(name, [as_text(cell) or None for cell in cells], dtype=pl.String)
    return TypedColumn(
        values.alias(name),
        decided,
        reason,
        examples,
        len(unread),
        tuple(unread.unique(maintain_order=True).head(3)),
    )


def _decide(name: str, filled: pl.Series, digits_count: bool) -> tuple[ColumnType, str]:
    if not len(filled):
        return "text", "it has no values"
    if not digits_count:
        return "text", "all values are texts"
    if set(filled.str.to_lowercase().unique().head(3)) <= set(_BOOLEANS):
        return "boolean", "all values are true or false"
    if re.sub(r"[\s-]+", "_", name.lower()) in CODE_NAMES:
        return "text", "its name is that of a code"
    zeros = filled.filter(filled.str.contains(r"^[+-]?0\d"))
    if len(zeros):
        return "text", f"values have leading zeros, such as {zeros[0]}"
    numbers = read_numbers(filled)
    share = numbers.count() / len(filled)
    if share < MIN_NUMBER_SHARE:
        return (
            "text",
            f"only {share:.0%} of the values are numbers" if share > 0.1 else "its values are texts",
        )
    others = "" if share == 1 else f"{share:.1%} of the values are numbers"
    plain = filled.filter(numbers.is_not_null())
    if plain.str.contains(r"^[+-]?\d+$").all():
        if (plain.str.len_chars() > 18).any() and plain.cast(pl.Int64, strict=False).is_null().any():
            return "text", "integers have more than 64 bits"
        return "integer", others or "all values are integers"
    codes = plain.filter(plain.str.contains(r"^\d+[eE]\d+$"))
    if len(codes) and plain.str.contains(r"^\d+(?:[eE]\d+)?$").all():
        return "text", f"values such as {codes[0]} are codes"
    if _inexact(plain):
        return "text", "integers above 2^53 are no exact numbers beside fractions"
    return "number", others or "all values are numbers"


def _inexact(numbers: pl.Series) -> bool:
    """Tell whether an integer in a column of numbers would be rounded."""
    whole = numbers.filter(numbers.str.contains(r"^[+-]?\d{16,}$"))
    return any(int(float(text)) != int(text) for text in whole)


def _converted(texts: pl.Series, to: ColumnType) -> pl.Series:
    match to:
        case "text":
            return texts
        case "integer":
            exact = texts.cast(pl.Int64, strict=False)
            return exact if exact.null_count() == texts.null_count() else _whole(texts, exact)
        case "number":
            return read_numbers(texts)
        case "boolean":
            lowered = texts.str.to_lowercase()
            return lowered.replace_strict(_STATED_BOOLEANS, default=None, return_dtype=pl.Boolean)


def _whole(texts: pl.Series, exact: pl.Series) -> pl.Series:
    """Complete the integers in `exact` by texts such as `12.0` and `1,234`, if they are whole and below 2^53."""
    numbers = read_numbers(texts)
    frame = pl.DataFrame([exact.alias("exact"), numbers.alias("number")])
    whole = (pl.col("number").round() == pl.col("number")) & (pl.col("number").abs() < 2**53)
    return frame.select(
        pl.coalesce("exact", pl.when(whole).then(pl.col("number")).cast(pl.Int64, strict=False))
    ).to_series()
