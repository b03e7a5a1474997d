"""Relations and edges of prepared data: from an interaction log, or from ready-made edges."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.sparse as sp

from model.console import progress
from model.errors import InputError
from model.records import INTRA_RELATION, Item, Relation, Split

from .prepare_config import PrepareConfig
from .relations.clusters import InteractionLog, user_clusters
from .relations.edges import related_pairs
from .relations.interaction_log import LogFilters, UnknownItems, read_user_items
from .relations.noise import noise_advice
from .relations.relation_names import name_clusters

EDGE_SCHEMA = {
    "item_a": pl.String,
    "item_b": pl.String,
    "relation_id": pl.String,
    "support": pl.Int64,
    "npmi": pl.Float64,
    "split": pl.String,
}

LOG_SCHEMA = {"user": pl.Int64, "item": pl.Int64, "relation_id": pl.String}


@dataclass(frozen=True)
class Graph:
    """Relations with their edges, and counts for the report.

    `edges` (columns of `EDGE_SCHEMA`) connect items of the same split, and `edges_across` a training item with a
    held-out item. `counts` contains the numbers of all interactions, of kept interactions, users and items, of unusable
    edges, and of edges across splits. `users` contains the number of users of each relation. `log` contains the kept
    interactions; it is None for ready-made edges. `advice` says in sentences what could be mended.
    """

    relations: list[Relation]
    edges: pl.DataFrame
    edges_across: pl.DataFrame
    counts: dict[str, int]
    users: dict[str, int]
    log: pl.DataFrame | None = None
    advice: tuple[str, ...] = ()


def _sorted_edges(
    pairs: pl.DataFrame, items: list[Item], splits: list[Split]
) -> tuple[pl.DataFrame, pl.DataFrame, Counter[str]]:
    """Divide pairs into edges within the splits and edges across them, and count what is dropped.

    `pairs` have a and b (rows of `items`), relation_id, support and npmi. Edges of text-only items are dropped (unless
    no item has a picture), and so are edges between a validation item and a test item.
    """
    without_any = not any(item.picture for item in items)
    nodes = pl.DataFrame(
        {
            "item": [item.item_id for item in items],
            "pictured": [bool(item.picture) or without_any for item in items],
            "split": [split.value for split in splits],
        }
    )
    a, b = nodes[pairs["a"]], nodes[pairs["b"]]
    edges = pairs.select(
        a["item"].alias("first"), b["item"].alias("second"), "relation_id", "support", "npmi",
        (a["pictured"] & b["pictured"]).alias("pictured"), a["split"].alias("split"), b["split"].alias("other"),
    )  # fmt: skip
    counts = Counter[str]()
    pictured = edges.filter("pictured")
    if len(pictured) < len(edges):
        counts["edges_of_text_only_items"] = len(edges) - len(pictured)
    pictured = pictured.with_columns(
        item_a=pl.min_horizontal("first", "second"), item_b=pl.max_horizontal("first", "second")
    )
    same = pl.col("split") == pl.col("other")
    within, across = pictured.filter(same), pictured.filter(~same)
    if len(across):
        counts["edges_across_splits"] = len(across)
    train = Split.TRAIN.value
    across = across.filter((pl.col("split") == train) | (pl.col("other") == train)).with_columns(
        split=pl.when(pl.col("split") == train).then("other").otherwise("split")
    )
    return within.select(*EDGE_SCHEMA), across.select(*EDGE_SCHEMA), counts


NO_PICTURES = (
    "No item has a picture, so the relations and pairs can be judged, but nothing can be trained on them. Give the "
    "pictures, then prepare again."
)


def graph_of_log(
    items: list[Item],
    splits: list[Split],
    batches: Iterable[pl.DataFrame],
    texts: Mapping[str, str] | None,
    config: PrepareConfig,
    skipped: Collection[str] = (),
) -> Graph:
    """Cluster the users of the log; return one relation for each cluster, with its related pairs.

    `texts` replaces descriptions by the IDs of their relations. `skipped` has the IDs of items that were not kept.
    """
    log, counts, advice = _read_log(items, batches, config, skipped)
    if not any(item.picture for item in items):
        advice += (NO_PICTURES,)
    membership = user_clusters(log, config.clusters, config.seed)
    found = int(membership.max()) + 1
    if config.clusters == "auto":
        advice += (f"--clusters auto chose {found} clusters.",)
    elif found < config.clusters:
        differ = "do not differ" if found == 1 else f"differ in only {found} ways"
        fewer = "" if found == 1 else f", or choose --clusters {found}"
        advice += (
            f"{config.clusters} clusters were asked for, but the users {differ} by the categories of their items, so "
            f"there {'is' if found == 1 else 'are'} {found}. Add categories to the items{fewer}.",
        )
    described, told = name_clusters(log, membership, config.behaviour, config.preset, texts)
    advice += told
    pairs = []
    for cluster, relation in enumerate(progress(described, "finding pairs", len(described))):
        name = relation.relation_id
        related = related_pairs(
            log.taken[membership == cluster], config.min_support, config.min_npmi, config.partners
        )
        paired = len(np.unique(np.concatenate([related.a, related.b])))
        noise = noise_advice(name, related.support, paired)
        advice += () if noise is None else (noise,)
        columns = {"a": related.a, "b": related.b, "support": related.support, "npmi": related.npmi}
        pairs.append(pl.DataFrame(columns).with_columns(relation_id=pl.lit(name)))
    within, across, dropped = _sorted_edges(pl.concat(pairs), items, splits)
    user, item = log.taken.nonzero()
    names = pl.Series([relation.relation_id for relation in described], dtype=pl.String)
    kept = pl.DataFrame({"user": user, "item": item, "relation_id": names[membership[user]]}, LOG_SCHEMA)
    return Graph(
        relations=[INTRA_RELATION, *described],
        edges=within,
        edges_across=across,
        counts={**counts, "edges_across_splits": 0, **dropped},
        users={
            relation.relation_id: int(users)
            for relation, users in zip(described, np.bincount(membership), strict=True)
        },
        log=kept.sort("user", "item"),
        advice=advice,
    )


def _read_log(
    items: list[Item], batches: Iterable[pl.DataFrame], config: PrepareConfig, skipped: Collection[str]
) -> tuple[InteractionLog, dict[str, int], tuple[str, ...]]:
    """Read the log as a matrix, and the categories of the items; return them with counts and advice."""
    filters = LogFilters(
        config.min_rating,
        config.min_user_items,
        config.max_user_items,
        config.min_item_users,
        config.repair_ids,
    )
    log = read_user_items(batches, [item.item_id for item in items], filters, skipped)
    users = len(log.users)
    least = 2 if config.clusters == "auto" else config.clusters
    if users < least:
        path = config.log_path
        steps = ", ".join(f"{name.replace('_', ' ')}: {count:,}" for name, count in log.counts.items())
        unknown = log.counts["of_unknown_items"] > log.counts["without_repeats"]
        remedy = "Relax the filters or choose fewer clusters."
        if unknown:
            remedy = "The IDs of the items (item_id) in the log and in the items differ; make them equal."
        elif 2 * log.counts.get("not_rated", 0) > log.counts["interactions"]:
            remedy = (
                "Most rows have no rating that is a number. Leave out --min-rating, or correct the ratings."
            )
        raise InputError(
            f"{path} has {users} users left after the filters (min_rating {config.min_rating}, "
            f"min_user_items {config.min_user_items}, min_item_users {config.min_item_users}), but needs at least "
            f"one for each of the {least} clusters. {' '.join([*log.advice, remedy])} Rows: {steps}."
        )
    categories, common = _without_common([item.categories for item in items])
    names = tuple(sorted({name for own in categories for name in own}))
    if not names:
        raise InputError(
            f"{config.item_path}: no item has categories, but the descriptions of relations are derived "
            "from them. Add categories to the items."
        )
    advice = tuple(
        f"Every item has the category {name!r}, so it distinguishes no users and is in no description."
        for name in common
    )
    return InteractionLog(log.taken, *_category_shares(categories, names)), log.counts, (*log.advice, *advice)


def _without_common(categories: Sequence[Sequence[str]]) -> tuple[Sequence[Sequence[str]], list[str]]:
    """Return the categories of each item without those of all items, such as the root of a tree, and the latter.

    They are kept if an item has no others.
    """
    common = set.intersection(*map(set, categories))
    if len(common) >= min(map(len, categories)):
        return categories, []
    return [[name for name in own if name not in common] for own in categories], sorted(common)


def _category_shares(
    categories: Sequence[Sequence[str]], names: tuple[str, ...]
) -> tuple[sp.csr_array, tuple[str, ...]]:
    """Return the share of each category in each item, and the names of the categories.

    If some items have no category, one more category marks them, so that their users also have a distribution.
    """
    column = {name: position for position, name in enumerate(names)}
    sizes = np.array([len(own) for own in categories])
    rows = np.repeat(np.arange(len(categories)), np.maximum(sizes, 1))
    columns = [column[name] for own in categories for name in own]
    shares = sp.csr_array(
        (
            np.repeat(1 / np.maximum(sizes, 1), np.maximum(sizes, 1)),
            (rows, _with_gaps(columns, sizes, len(names))),
        ),
        shape=(len(categories), len(names) + 1),
    )
    if (sizes > 0).all():
        return shares[:, :-1], names
    return shares, (*names, "other things")


def _with_gaps(columns: list[int], sizes: np.ndarray, gap: int) -> np.ndarray:
    """Insert `gap` at each item without categories."""
    filled = np.full(int(np.maximum(sizes, 1).sum()), gap)
    filled[np.repeat(sizes > 0, np.maximum(sizes, 1))] = columns
    return filled


def graph_of_edges(
    items: list[Item],
    splits: list[Split],
    given: pl.DataFrame,
    texts: Mapping[str, str],
    repair_ids: bool = False,
) -> Graph:
    """Return the ready-made edges, each once, and their relations; `texts` are the descriptions."""
    given, advice = _with_known_ids(given, items, repair_ids)
    rows = pl.DataFrame({"item": [item.item_id for item in items], "row": np.arange(len(items))})
    edges = given.select(
        first=pl.min_horizontal("item_a", "item_b"),
        second=pl.max_horizontal("item_a", "item_b"),
        relation_id="relation",
    ).unique(maintain_order=True)
    counts = Counter[str]()
    different = edges.filter(pl.col("first") != pl.col("second"))
    if len(different) < len(edges):
        counts["self_edges"] = len(edges) - len(different)
    pairs = different.join(
        rows.rename({"item": "first", "row": "a"}), on="first", how="left", maintain_order="left"
    )
    pairs = pairs.join(
        rows.rename({"item": "second", "row": "b"}), on="second", how="left", maintain_order="left"
    )
    known = pairs.drop_nulls(["a", "b"])
    if len(known) < len(pairs):
        counts["edges_of_unknown_items"] = len(pairs) - len(known)
    if not len(known) and len(different):
        a, b = different.select("first", "second").row(0)
        raise InputError(
            f"None of the {len(different):,} edges joins two of the items, such as {a!r} and {b!r}. The IDs of the "
            "items (item_id) and those of the edges differ; make them equal."
        )
    known = known.with_columns(support=pl.lit(1, pl.Int64), npmi=pl.lit(1.0))
    within, across, dropped = _sorted_edges(known, items, splits)
    relations = [INTRA_RELATION, *(Relation(name, text) for name, text in texts.items())]
    return Graph(relations, within, across, dict(counts + dropped), users={}, advice=advice)


def _with_known_ids(
    edges: pl.DataFrame, items: list[Item], repair: bool
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Return edges with repaired IDs if they are to be repaired, and say how many IDs name no item."""
    known = pl.DataFrame(
        {"item_id": [item.item_id for item in items], "row": np.arange(len(items), dtype=np.int32)}
    )
    unknown = UnknownItems(known, repair, "edge ends")
    for end in ("item_a", "item_b"):
        lost = edges.join(known, left_on=end, right_on="item_id", how="left", maintain_order="left")[
            "row"
        ].is_null()
        if not lost.any():
            continue
        given = edges[end].filter(lost)
        meant = known["item_id"].gather(unknown.resolve(given))
        ids = edges[end].scatter(lost.arg_true(), pl.select(pl.coalesce(meant, given)).to_series())
        edges = edges.with_columns(ids.alias(end))
    return edges, tuple(unknown.advice())
