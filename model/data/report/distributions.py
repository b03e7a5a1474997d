"""Distributions of prepared data: how many items a user has, how many users an item, and how many pairs."""

from itertools import count, pairwise

import polars as pl

from .preparation_report import Bin, Distribution


def distributions(log: pl.DataFrame | None, edges: pl.DataFrame, pairable: int) -> tuple[Distribution, ...]:
    """Return the histograms of items per user, users per item (both only with a log) and pairs per item.

    `log` has user and item, each pair once. `edges` have a and b. `pairable` is the number of items that can
    have a pair: those without one are counted as items with 0 pairs.
    """
    found = []
    if log is not None:
        found += [
            _histogram("items per user", "users", log.group_by("user").len()["len"]),
            _histogram("users per item", "items", log.group_by("item").len()["len"]),
        ]
    pairs = edges.select("a", "b").unique()
    of_items = pl.concat([pairs["a"], pairs["b"]]).value_counts()["count"]
    without = pl.zeros(pairable - len(of_items), dtype=of_items.dtype, eager=True)
    found.append(_histogram("pairs per item", "items", pl.concat([of_items, without])))
    return tuple(one for one in found if one is not None)


def _histogram(name: str, counted: str, values: pl.Series) -> Distribution | None:
    """Count `values` in bins that start at 0, 1, 2, 5, 10, 20, 50, ...; None if there are no values."""
    if not len(values):
        return None
    least, most = int(values.min() or 0), int(values.max() or 0)  # type: ignore[arg-type]
    starts = [0]
    for power in count():
        starts += [10**power, 2 * 10**power, 5 * 10**power]
        if starts[-1] > most:
            break
    bins = tuple(
        Bin(least=start, most=end - 1, count=int(values.is_between(start, end - 1).sum()))
        for start, end in pairwise(starts)
        if end > least and start <= most
    )
    return Distribution(name=name, counted=counted, median=float(values.median() or 0), most=most, bins=bins)  # type: ignore[arg-type]
