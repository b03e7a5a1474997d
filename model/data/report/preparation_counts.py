"""Counts of the report of `rcml prepare`, taken from the files, the items and the graph of relations."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import polars as pl

from model.data.files.row_ledger import RowLedger, shortened
from model.data.item_table import ItemTable
from model.data.prepare_config import PrepareConfig
from model.data.relation_graph import Graph
from model.records import Item, Split

from .distributions import distributions
from .preparation_report import (
    ColumnInfo,
    FileCounts,
    FilterStep,
    ItemCounts,
    PreparationReport,
    RelationCounts,
    SkippedCounts,
    SplitCounts,
)
from .relation_profiles import ends, numbered, sample_pairs, top_categories
from .skipped_items import grouped


def count_prepared(
    items: Sequence[Item],
    splits: Sequence[Split],
    graph: Graph,
    set_aside: Mapping[str, str],
    config: PrepareConfig,
) -> PreparationReport:
    """Create the report, without its files, columns and verdict."""
    counts = graph.counts
    relations = [relation for relation in graph.relations if not relation.intra]
    kinds = pl.Enum([relation.relation_id for relation in relations])
    edges = numbered(graph.edges, items, kinds)
    pictured = Counter(split for item, split in zip(items, splits, strict=True) if item.picture)
    relations_of_pair = edges.group_by("a", "b").len()["len"]
    taken = ends(edges) if graph.log is None else graph.log.with_columns(pl.col("relation_id").cast(kinds))
    categories = top_categories(items, taken)
    samples = sample_pairs(items, edges, counted=graph.log is not None)
    training = edges.filter(pl.col("split") == Split.TRAIN.value)
    related_items = dict(ends(edges).group_by("relation_id").agg(pl.col("item").n_unique()).iter_rows())
    pairs: dict[str, dict[Split, int]] = defaultdict(dict)
    for name, split, count in edges.group_by("relation_id", "split").len().iter_rows():
        pairs[name][Split(split)] = count
    return PreparationReport(
        items=ItemCounts(
            kept=len(items),
            text_only=sum(not item.picture for item in items),
            **_by_split(pictured).model_dump(),
        ),
        log=dict(counts),
        pairs=len(relations_of_pair),
        pairs_of_one_relation=int((relations_of_pair == 1).sum()),
        edges_across_kept=len(graph.edges_across),
        edges_across_dropped=counts.get("edges_across_splits", 0) - len(graph.edges_across),
        relations=tuple(
            RelationCounts(
                relation=name,
                description=relation.description,
                users=graph.users.get(name),
                items=related_items.get(name, 0),
                pairs=_by_split(pairs[name]),
                categories=categories.get(name, ()),
                samples=samples.get(name, ()),
            )
            for name, relation in ((relation.relation_id, relation) for relation in relations)
        ),
        set_aside=dict(set_aside),
        advice=graph.advice,
        pairs_across=_by_split(
            {Split(name): count for name, count in graph.edges_across["split"].value_counts().iter_rows()}
        ),
        trained_items=ends(training)["item"].n_unique(),
        filters=filter_steps(counts, config),
        distributions=distributions(graph.log, edges, sum(pictured.values()) or len(items)),
        skipped_items=grouped(set_aside),
    )


def filter_steps(counts: Mapping[str, int], config: PrepareConfig) -> tuple[FilterStep, ...]:
    """Return the interactions that each filter of the log leaves; `counts` are those of `read_user_items`."""
    if "interactions" not in counts:
        return ()
    left = counts["interactions"]
    steps = [FilterStep(step="in the log", interactions=left)]
    if config.min_rating is not None:
        left -= counts.get("not_rated", 0) + counts.get("low_rated", 0)
        steps.append(
            FilterStep(step=f"rated {config.min_rating:g} or higher (--min-rating)", interactions=left)
        )
    left -= counts.get("of_unknown_items", 0)
    steps.append(FilterStep(step="with a kept item", interactions=left))
    left = counts.get("without_repeats", left)
    steps.append(FilterStep(step="each user and item once", interactions=left))
    left = counts.get("of_latest_items", left)
    steps.append(
        FilterStep(
            step=f"latest {config.max_user_items} items of each user (--max-user-items)", interactions=left
        )
    )
    steps.append(
        FilterStep(
            step=f"users with {config.min_user_items} items, items with {config.min_item_users} users "
            "(--min-user-items, --min-item-users)",
            interactions=counts["kept_interactions"],
            users=counts.get("kept_users"),
            items=counts.get("kept_items"),
        )
    )
    return tuple(steps)


def count_file(ledger: RowLedger) -> FileCounts:
    """Create the account of one file."""
    return FileCounts(
        file=ledger.path.name,
        rows=ledger.rows,
        kept=ledger.kept,
        skipped=tuple(
            SkippedCounts(reason=reason, rows=found.count, examples=tuple(found.examples))
            for reason, found in ledger.skipped.items()
        ),
        notes=tuple(ledger.notes),
    )


def describe_columns(table: ItemTable) -> tuple[ColumnInfo, ...]:
    """Describe the attribute columns of `table`, and those that were left out."""
    return (
        *(
            ColumnInfo(
                column=name,
                type=column.type,
                decision=column.decision,
                examples=tuple(shortened(example) for example in column.examples),
                unread=column.unread,
                unread_examples=tuple(shortened(example) for example in column.unread_examples),
            )
            for name, column in table.columns.items()
        ),
        *(ColumnInfo(column=name, type=None, decision=reason) for name, reason in table.left_out.items()),
    )


def _by_split(counts: Mapping[Split, int]) -> SplitCounts:
    return SplitCounts(**{split.value: counts.get(split, 0) for split in Split})
