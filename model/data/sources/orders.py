"""Exports of orders, which shop systems write alike: rows of one order, and line items that name products.

The first row of an order holds what all its rows share (customer, date, status); the others repeat it or leave it
empty. A line item names its product by ID, SKU or name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from model.data.files.row_ledger import RowLedger

from .source import LOG_NAMES, set_aside

SHARED = ("user_id", "customer", "status", "cancelled", "timestamp")
"""Columns that all rows of an order share."""


@dataclass
class ProductIndex:
    """IDs of products by what orders call them: `keys[kind][key]` is an ID, or None if several share it."""

    keys: dict[str, dict[str, str | None]] = field(default_factory=dict)

    def add(self, kind: str, key: object, item_id: str) -> None:
        """Say that `key`, of a kind such as "sku", names the product `item_id`."""
        text = str(key or "").strip()
        if text:
            known = self.keys.setdefault(kind, {})
            known[text] = item_id if known.get(text, item_id) == item_id else None

    def items_of(self, lines: pl.DataFrame, kinds: Sequence[tuple[str, str]]) -> pl.DataFrame:
        """Return `lines` with the column item_id: the product that the first of `kinds` (column, kind of key) names.

        A line whose product is not known gets its name or SKU, so that it is counted among the unknown items.
        """
        found = []
        for number, (column, kind) in enumerate(kinds):
            known = {key: item for key, item in self.keys.get(kind, {}).items() if item is not None}
            name = f"found {number}"
            keys = pl.DataFrame(
                {"key": list(known), name: list(known.values())}, {"key": pl.String, name: pl.String}
            )
            lines = lines.with_columns(pl.col(column).str.strip_chars().alias("key"))
            lines = lines.join(keys, on="key", how="left", maintain_order="left").drop("key")
            found.append(name)
        return lines.with_columns(pl.coalesce(*found, "name", "sku").alias("item_id"))


def whole_orders(lines: pl.DataFrame) -> pl.DataFrame:
    """Return `lines` in which every row of an order has the values of `SHARED` that its first row has.

    The user is the e-mail address in lower case, otherwise the customer, otherwise (a guest) the order.
    """
    lines = lines.with_columns(pl.col("order").forward_fill())
    shared = [name for name in SHARED if name in lines.columns]
    lines = lines.with_columns(pl.col(name).drop_nulls().first().over("order").alias(name) for name in shared)
    customer = pl.col("customer") if "customer" in lines.columns else pl.lit(None, pl.String)
    user = pl.col("user_id").str.strip_chars().str.to_lowercase()
    return lines.with_columns(pl.coalesce(user, customer, "order").alias("user_id"))


def without_lost_orders(
    lines: pl.DataFrame, ledger: RowLedger, lost: Mapping[str, Sequence[str]], good: Sequence[str]
) -> tuple[pl.DataFrame, list[str]]:
    """Set the rows of orders aside whose status is one of those in `lost`, by the reason that they are given for.

    Return the other rows, and advice if their status is not one of those that are known to be `good`.
    """
    status = pl.col("status").str.strip_chars().str.to_lowercase()
    for reason, statuses in lost.items():
        lines = set_aside(lines, ledger, status.is_in(list(statuses)), reason, "order")
    unknown = lines.filter(status.is_not_null() & (status != "") & ~status.is_in(list(good)))
    if not len(unknown):
        return lines, []
    names = unknown["status"].value_counts(sort=True).head(5)
    told = ", ".join(f"{name} ({count:,})" for name, count in names.iter_rows())
    return lines, [
        f"{ledger.path.name}: {len(unknown):,} rows count as purchases although their status is not known: {told}. If "
        "they are none, export the orders in English, or without them."
    ]


def as_log(lines: pl.DataFrame) -> pl.DataFrame:
    """Return the columns of a log; a purchase has no rating."""
    return lines.with_columns(pl.lit(None, pl.String).alias("rating")).select(LOG_NAMES)
