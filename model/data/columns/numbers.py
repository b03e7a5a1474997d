"""Numbers as shops write them: with a currency, and with a point or a comma as the decimal sign."""

import re

import polars as pl

NO_VALUE = ("", "-", "--", "n/a", "na", "#n/a", "nan", "null", "none", "nil", "\\n", "unknown", "tbd")
"""Texts, in lower case, that stand for a missing value."""

_CODES = "usd|eur|gbp|chf|jpy|cny|rmb|inr|sek|nok|dkk|pln|czk|huf|ron|brl|aud|cad|nzd|mxn|zar|try|rub|krw|kr|zł|fr|rs"
"""Codes and names of currencies; the A of "A4" is none."""

_CURRENCY = (
    rf"(?i)^(?:(?:us|ca?|au?|nz|hk|nt|mx|r|s)\s*\$|\p{{Sc}}|(?:{_CODES})\.?)[\s\p{{Sc}}]*"
    rf"|\s*(?:(?:us|ca?|au?)?\p{{Sc}}|(?:{_CODES})\.?|[.,]-{{1,2}})$"
)

_RAND = r"(?i)^r\s*(\d[\d ,.]*[.,]\d\d)$"
"""Price in rand. Other texts such as "R17" are codes."""

_PLAIN = r"^[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?$"


def decimal_comma(texts: pl.Series) -> bool:
    """Tell whether the decimal sign of a column is a comma: more values have `19,90` than `19.90`.

    `1,234` may be either, so it does not count. A column without any clear value has a decimal point.
    """
    comma = texts.str.contains(r"\d,\d{1,2}(?:[^\d,]|$)|\d\.\d{3},\d|,\d{4,}").sum()
    point = texts.str.contains(r"\d\.\d{1,2}(?:\D|$)|\d,\d{3}\.\d|\.\d{4,}").sum()
    return bool(comma > point)


def read_numbers(texts: pl.Series) -> pl.Series:
    """Return the numbers in a column of texts as Float64, and null for a text that is not one number.

    Currencies, thousands separators and blanks are removed. `from $5` and `1-2` are not one number.
    """
    bare = (
        texts.str.strip_chars()
        .str.replace_all(r"[\s\u00a0\u202f'\u2019]", " ")
        .str.replace(_RAND, "${1}")
        .str.replace(_CURRENCY, "")
        .str.replace(_CURRENCY, "")
        .str.strip_chars()
        .str.replace(r"^\+", "")
        .str.replace(r"^[-\u2212]\s*(?:\p{Sc})?\s*", "-")
    )
    bare = _ungrouped(bare, " ", "[.,]")
    if decimal_comma(bare):
        pointed = _ungrouped(bare, ".", ",").str.replace(",", ".", literal=True)
    else:
        pointed = _ungrouped(bare, ",", r"\.")
    frame = pl.DataFrame({"text": pointed})
    return frame.select(
        pl.when(pl.col("text").str.contains(_PLAIN)).then(pl.col("text")).cast(pl.Float64, strict=False)
    ).to_series()


def _ungrouped(texts: pl.Series, separator: str, decimal_sign: str) -> pl.Series:
    """Remove `separator` from the numbers in which it separates thousands, or lakhs and thousands as in India."""
    mark = re.escape(separator)
    grouped = texts.str.contains(
        rf"^-?[1-9]\d{{0,2}}(?:{mark}\d{{2,3}})*{mark}\d{{3}}(?:{decimal_sign}\d*)?$"
    )
    frame = pl.DataFrame({"text": texts, "grouped": grouped})
    return frame.select(
        pl.when("grouped").then(pl.col("text").str.replace_all(separator, "", literal=True)).otherwise("text")
    ).to_series()


def is_missing(texts: pl.Series) -> pl.Series:
    """Tell for each text whether it stands for a missing value."""
    return texts.is_null() | texts.str.strip_chars().str.to_lowercase().is_in(NO_VALUE)
