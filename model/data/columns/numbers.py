"""Numbers as shops write them: with a currency, and with a point or a comma as the decimal sign."""

import polars as pl

NO_VALUE = ("", "-", "--", "n/a", "na", "#n/a", "nan", "null", "none", "nil", "\\n", "unknown", "tbd")
"""Texts, in lower case, that stand for a missing value."""

_CURRENCY = (
    r"(?i)^(?:[\p{Sc}]|(?:usd|eur|gbp|chf|jpy|cny|rmb|inr|sek|nok|dkk|pln|czk|huf|ron|brl|aud|cad|nzd|mxn|zar|try|rub"
    r"|krw|us|c|a|r|kr|zł|fr|rs)\.?[\s\p{Sc}]*)\s*|\s*(?:[\p{Sc}]|(?:usd|eur|gbp|chf|jpy|cny|rmb|inr|sek|nok|dkk|pln"
    r"|czk|huf|ron|brl|aud|cad|nzd|mxn|zar|try|rub|krw|kr|zł|fr|rs|,-)\.?)$"
)

_PLAIN = r"^[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?$"


def decimal_comma(texts: pl.Series) -> bool:
    """Tell whether the decimal sign of a column is a comma: more values have `19,90` than `19.90`.

    `1,234` may be either, so it does not count. A column without any clear value has a decimal point.
    """
    comma = texts.str.contains(r"\d,\d{1,2}(?:\D|$)|\d\.\d{3},\d|,\d{4,}").sum()
    point = texts.str.contains(r"\d\.\d{1,2}(?:\D|$)|\d,\d{3}\.\d|\.\d{4,}").sum()
    return bool(comma > point)


def read_numbers(texts: pl.Series) -> pl.Series:
    """Return the numbers in a column of texts as Float64, and null for a text that is not one number.

    Currencies, thousands separators and blanks are removed. `from $5` and `1-2` are not one number.
    """
    bare = (
        texts.str.strip_chars()
        .str.replace_all(r"[\s\u00a0\u202f'\u2019_]", " ")
        .str.replace(_CURRENCY, "")
        .str.replace(_CURRENCY, "")
        .str.strip_chars()
        .str.replace(r"^\+", "")
        .str.replace(r"^[-\u2212]\s*(?:\p{Sc})?\s*", "-")
        .str.replace_all(r"(\d) (\d{3})\b", "${1}${2}")
        .str.replace_all(r"(\d) (\d{3})\b", "${1}${2}")
    )
    if decimal_comma(bare):
        pointed = bare.str.replace_all(r"(\d)\.(\d{3})", "${1}${2}").str.replace(",", ".", literal=True)
    else:
        pointed = bare.str.replace_all(r"(\d),(\d{3})", "${1}${2}")
    frame = pl.DataFrame({"text": pointed})
    return frame.select(
        pl.when(pl.col("text").str.contains(_PLAIN)).then(pl.col("text")).cast(pl.Float64, strict=False)
    ).to_series()


def is_missing(texts: pl.Series) -> pl.Series:
    """Tell for each text whether it stands for a missing value."""
    return texts.is_null() | texts.str.strip_chars().str.to_lowercase().is_in(NO_VALUE)
