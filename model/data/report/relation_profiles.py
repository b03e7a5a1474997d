"""Profile of each relation: the categories that matter in it, and a few of its pairs with titles and pictures.

All of it is computed on tables, so that millions of edges take seconds.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from model.records import Item

from .preparation_report import CategoryShare, PairedItem, SamplePair

MAX_CATEGORIES = 6
"""Number of categories shown of a relation."""

SAMPLES = 5
"""Number of pairs shown of a relation."""


def top_categories(items: Sequence[Item], taken: pl.DataFrame) -> dict[str, tuple[CategoryShare, ...]]:
    """Return the categories of each relation with the highest share x lift, as in its description.

    `taken` has relation_id and item (a position in `items`), one row for each time that an item counts. An item with n
    categories counts 1/n for each of them. Items without categories do not count.
    """
    sizes = np.array([len(item.categories) for item in items], dtype=np.int64)
    categories = pl.DataFrame(
        {
            "item": np.repeat(np.arange(len(items), dtype=np.int64), sizes),
            "category": pl.Series([name for item in items for name in item.categories], dtype=pl.String),
            "weight": np.repeat(1.0 / np.maximum(sizes, 1), sizes),
        }
    )
    found = (
        taken.group_by("relation_id", pl.col("item").cast(pl.Int64))
        .len()
        .join(categories, on="item")
        .group_by("relation_id", "category")
        .agg(taken=(pl.col("len") * pl.col("weight")).sum())
        .with_columns(share=pl.col("taken") / pl.col("taken").sum().over("relation_id"))
        .with_columns(lift=pl.col("share") / (pl.col("taken").sum().over("category") / pl.col("taken").sum()))
        # Sums differ in their last digits from run to run, because threads add in any order.
        .with_columns(pl.col("share", "lift").round(6))
        .sort(pl.col("share") * pl.col("lift"), "category", descending=[True, False])
        .group_by("relation_id", maintain_order=True)
        .head(MAX_CATEGORIES)
    )
    profiles: dict[str, tuple[CategoryShare, ...]] = {}
    for relation, category, share, lift in found.select(
        "relation_id", "category", "share", "lift"
    ).iter_rows():
        own = CategoryShare(category=category, share=share, lift=lift)
        profiles[relation] = (*profiles.get(relation, ()), own)
    return profiles


def numbered(edges: pl.DataFrame, items: Sequence[Item], kinds: pl.Enum) -> pl.DataFrame:
    """Return the edges with a and b (positions in `items`) instead of IDs, and relation_id as `kinds`.

    Counting millions of edges takes a fraction of the time and memory with numbers.
    """
    rows = pl.DataFrame({"item_id": [item.item_id for item in items], "row": range(len(items))}).cast(
        {"row": pl.Int32}
    )
    found = edges.with_columns(pl.col("relation_id").cast(kinds))
    for end, name in (("item_a", "a"), ("item_b", "b")):
        found = found.join(rows.rename({"item_id": end, "row": name}), on=end, maintain_order="left")
        found = found.drop(end)
    return found


def ends(edges: pl.DataFrame) -> pl.DataFrame:
    """Return relation_id and item of both ends of all edges; `edges` have a and b."""
    return pl.concat([edges.select("relation_id", item=end) for end in ("a", "b")])


def sample_pairs(
    items: Sequence[Item], edges: pl.DataFrame, *, counted: bool
) -> dict[str, tuple[SamplePair, ...]]:
    """Return `SAMPLES` pairs of each relation: the middle one of each fifth of its edges, ordered by NPMI.

    The pairs thus show the strong and the weak ones alike, and are the same each time. `edges` have relation_id, a, b
    (positions in `items`), support and npmi. `counted` says whether support and npmi were counted, or are those of
    ready-made edges, which say nothing.
    """
    ordered = edges.sort("relation_id", "npmi", "a", "b", descending=[False, True, False, False])
    place, size = pl.int_range(pl.len()).over("relation_id"), pl.len().over("relation_id")
    middles = [(2 * part + 1) * pl.col("size") // (2 * SAMPLES) for part in range(SAMPLES)]
    chosen = ordered.with_columns(place=place, size=size).filter(
        pl.any_horizontal([pl.col("place") == middle for middle in middles])
    )
    samples: dict[str, tuple[SamplePair, ...]] = {}
    for relation, a, b, support, npmi in chosen.select(
        "relation_id", "a", "b", "support", "npmi"
    ).iter_rows():
        pair = SamplePair(
            first=_paired(items[a]),
            second=_paired(items[b]),
            support=support if counted else None,
            npmi=round(npmi, 6) if counted else None,
        )
        samples[relation] = (*samples.get(relation, ()), pair)
    return samples


def _paired(item: Item) -> PairedItem:
    return PairedItem(item_id=item.item_id, title=item.title, picture=item.picture)
