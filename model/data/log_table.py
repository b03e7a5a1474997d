"""Batches of an interaction log with types: IDs as text, ratings as numbers, and times in seconds since 1970.

Rows without a user or an item are set aside. A rating or time that is none becomes null and is counted.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import polars as pl

from model.data.columns.numbers import is_missing, read_numbers
from model.data.columns.timestamps import read_times
from model.data.files.row_ledger import RowLedger, shortened

LOG_COLUMNS = ("user_id", "item_id", "rating", "timestamp")


def read_log_table(
    batches: Iterable[tuple[RowLedger, pl.DataFrame]], unread: Counter[str]
) -> Iterator[pl.DataFrame]:
    """Yield each batch of texts as user_id, item_id (String), rating (Float64) and timestamp (Float64, seconds).

    `unread` counts the ratings and times that could not be read; its keys name the column and the first such value.
    """
    firsts: dict[str, str] = {}
    for ledger, batch in batches:
        for column in ("user_id", "item_id"):
            # Rows whose user is "NULL" would otherwise be those of one user, who took everything.
            bare = batch[column].str.strip_chars()
            empty = is_missing(bare) if column == "user_id" else bare.is_null() | (bare == "")
            if empty.any():
                first = batch[column].filter(empty)[0] or ""
                ledger.skip(f"the row has no {column}", 0, first, count=int(empty.sum()))
                batch = batch.filter(~empty)
        yield batch.select(
            "user_id",
            "item_id",
            _counted(batch["rating"], _ratings(batch["rating"]), unread, firsts),
            _counted(batch["timestamp"], read_times(batch["timestamp"]).alias("timestamp"), unread, firsts),
        )


def unread_advice(unread: Mapping[str, int]) -> list[str]:
    """Say which ratings and times could not be read, and how they can be written."""
    remedies = {
        "rating": "Write ratings as numbers.",
        "timestamp": "Write times as 2026-11-27 14:30 or in seconds since 1970.",
    }
    return [
        f"{count:,} {'value' if count == 1 else 'values'} of {what}, could not be read. "
        f"{remedies[what.partition(',')[0]]}"
        for what, count in unread.items()
    ]


def _ratings(texts: pl.Series) -> pl.Series:
    """Return ratings as Float64; null if there is none. NaN is no rating."""
    numbers = texts.str.strip_chars().cast(pl.Float64, strict=False)
    numbers = numbers.set(~numbers.is_finite(), None)
    if numbers.null_count() == texts.null_count():
        return numbers
    return pl.DataFrame({"rating": numbers, "other": read_numbers(texts)}).select(
        pl.coalesce("rating", "other")
    )["rating"]


def _counted(texts: pl.Series, values: pl.Series, unread: Counter[str], firsts: dict[str, str]) -> pl.Series:
    """Count the texts without a value, except those that stand for a missing one, and return `values`."""
    lost = texts.filter(values.is_null() & texts.is_not_null())
    lost = lost.filter(~is_missing(lost)) if len(lost) else lost
    if len(lost):
        first = firsts.setdefault(texts.name, shortened(lost[0]))
        unread[f"{texts.name}, such as {first!r}"] += len(lost)
    return values
