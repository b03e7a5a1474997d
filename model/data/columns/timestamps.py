"""Times as logs have them: numbers of seconds up to nanoseconds since 1970, ISO 8601, and dates of mail and dumps."""

import polars as pl

_FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f %z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M%#z",
    "%Y-%m-%d %H:%M%#z",
    "%a %b %d %H:%M:%S %z %Y",
    "%a, %d %b %Y %H:%M:%S %z",
)
"""Formats with a time zone. The last two are those of Goodreads and of mail (RFC 5322)."""

_LOCAL_FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
    "%Y%m%dT%H%M%S",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y %I:%M %p",
    "%a %b %d %H:%M:%S %Y",
    "%a, %d %b %Y %H:%M:%S",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
)
"""Formats without a time zone. Only Americans write AM and PM after a date with strokes, so the month comes first."""

_DATE_FORMATS = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y%m%d",
    "%d.%m.%Y",
    "%m %d, %Y",
    "%d %b %Y",
    "%b %d, %Y",
    "%B %d, %Y",
)

_COMPACT_DATE = r"^(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])$"

_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
"""Least number that is taken for nanoseconds, microseconds and milliseconds, and their number in a second.

100,000,000,000 seconds lie in the year 5138, and as many milliseconds in 1973.
"""


def read_times(texts: pl.Series) -> pl.Series:
    """Return the seconds since 1970 (UTC) as Float64, and null for a text that is no time.

    Times without a zone are taken as UTC. Dates such as 03/04/2020 are null, because the order of day and month is
    unknown.
    """
    trimmed = texts.str.strip_chars()
    numbers = trimmed.cast(pl.Float64, strict=False)
    # 20130419 is a date in a column of such dates, and a second of 1970 in a column of numbers.
    plain = trimmed.filter(numbers.is_not_null())
    if len(plain) and plain.str.contains(_COMPACT_DATE).all():
        numbers = pl.Series([None] * len(trimmed), dtype=pl.Float64)
    value = pl.col("number")
    scaled = value
    for least, per_second in _UNITS:
        scaled = (
            pl.when(value.abs().is_between(least, least * 1e3)).then(value / per_second).otherwise(scaled)
        )
    found = pl.DataFrame({"number": numbers}).select(pl.when(value.is_finite()).then(scaled).alias("time"))[
        "time"
    ]
    rest = trimmed.filter(found.is_null() & trimmed.is_not_null())
    if not len(rest):
        return found
    values = rest.unique()
    known = pl.DataFrame({"text": values, "time": _dates(values)})
    joined = pl.DataFrame({"text": trimmed, "number": found}).join(
        known, on="text", how="left", maintain_order="left"
    )
    return joined.select(pl.coalesce("number", "time")).to_series()


def _dates(texts: pl.Series) -> pl.Series:
    """Read texts that are no numbers with the first format that fits each of them."""
    read = [_seconds(texts.str.strptime(pl.Datetime("us", "UTC"), form, strict=False)) for form in _FORMATS]
    zulu = texts.str.replace(r"(?i)(?:\s*UTC|\s*GMT|Z)$", "")
    read += [_seconds(zulu.str.strptime(pl.Datetime("us"), form, strict=False)) for form in _LOCAL_FORMATS]
    read += [
        _seconds(zulu.str.strptime(pl.Date, form, strict=False).cast(pl.Datetime("us")))
        for form in _DATE_FORMATS
    ]
    names = [f"format {i}" for i in range(len(read))]
    return pl.DataFrame(dict(zip(names, read, strict=True))).select(pl.coalesce(names)).to_series()


def _seconds(times: pl.Series) -> pl.Series:
    return times.dt.epoch("us") / 1e6
