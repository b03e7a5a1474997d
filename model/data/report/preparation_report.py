"""Report of `rcml prepare`: the raw files, kept and skipped items, the filtered log and the related pairs."""

from collections import Counter
from collections.abc import Mapping, Sequence

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from model.data.files.row_ledger import RowLedger, shortened
from model.data.item_table import ItemTable
from model.records import Item, Relation, Split


class SplitCounts(BaseModel):
    """Counts for each split."""

    model_config = ConfigDict(frozen=True)

    train: int
    validation: int
    test: int


class ItemCounts(BaseModel):
    """Numbers of items: all kept items, those without a picture, and those with a picture in each split."""

    model_config = ConfigDict(frozen=True)

    kept: int
    text_only: int
    train: int
    validation: int
    test: int


class RelationCounts(BaseModel):
    """Counts for one relation: its users (None for ready-made edges), its items and its pairs."""

    model_config = ConfigDict(frozen=True)

    relation: str
    description: str
    users: int | None
    items: int
    pairs: SplitCounts


class SkippedCounts(BaseModel):
    """Rows of a file that were set aside for one reason; `examples` are the first lines with their values."""

    model_config = ConfigDict(frozen=True)

    reason: str
    rows: int
    examples: tuple[tuple[int, str], ...]


class FileCounts(BaseModel):
    """Account of one raw file: all rows = kept rows + rows set aside. `notes` says how the file was read."""

    model_config = ConfigDict(frozen=True)

    file: str
    rows: int
    kept: int
    skipped: tuple[SkippedCounts, ...]
    notes: tuple[str, ...]


class ColumnInfo(BaseModel):
    """Attribute column: its type (None if it is left out), how that was decided, and examples of raw values.

    `unread` counts the values that do not fit the type.
    """

    model_config = ConfigDict(frozen=True)

    column: str
    type: str | None
    decision: str
    examples: tuple[str, ...] = ()
    unread: int = 0
    unread_examples: tuple[str, ...] = ()


class PreparationReport(BaseModel):
    """Content of `report.json` in prepared data.

    `log` maps names to counts: interactions before and after the filters, kept users, kept items, unusable edges, and
    all edges across splits.
    `set_aside` maps the ID of each skipped item to the reason.
    """

    model_config = ConfigDict(frozen=True)

    items: ItemCounts
    log: dict[str, int]
    pairs: int
    pairs_of_one_relation: int
    edges_across_kept: int = Field(
        description="number of edges between a training item and a validation or test item, in edges_across.parquet"
    )
    edges_across_dropped: int = Field(
        description="number of edges between a validation item and a test item, which are in no file"
    )
    relations: tuple[RelationCounts, ...]
    set_aside: dict[str, str]
    files: tuple[FileCounts, ...] = ()
    columns: tuple[ColumnInfo, ...] = ()
    advice: tuple[str, ...] = Field((), description="what could be mended, in sentences")
    changes: dict[str, int] = Field(
        default_factory=dict, description="number of changed texts for each change"
    )


def count_prepared(
    items: Sequence[Item],
    splits: Sequence[Split],
    relations: Sequence[Relation],
    edges: pl.DataFrame,
    edges_across_kept: int,
    log_counts: Mapping[str, int],
    users: Mapping[str, int],
    set_aside: Mapping[str, str],
) -> PreparationReport:
    """Create the report; `users` maps the ID of each relation to the number of users in its cluster.

    `edges` have item_a, item_b, relation_id and split. `edges_across_kept` is the number of edges between a training
    item and a held-out item. All other edges across splits in `log_counts` were dropped.
    """
    pictured = Counter(split for item, split in zip(items, splits, strict=True) if item.picture)
    relations_of_pair = edges.group_by("item_a", "item_b").len()["len"]
    return PreparationReport(
        items=ItemCounts(
            kept=len(items),
            text_only=sum(not item.picture for item in items),
            **_by_split(pictured).model_dump(),
        ),
        log=dict(log_counts),
        pairs=len(relations_of_pair),
        pairs_of_one_relation=int((relations_of_pair == 1).sum()),
        edges_across_kept=edges_across_kept,
        edges_across_dropped=log_counts.get("edges_across_splits", 0) - edges_across_kept,
        relations=tuple(
            _count_relation(
                relation,
                edges.filter(pl.col("relation_id") == relation.relation_id),
                users.get(relation.relation_id),
            )
            for relation in relations
            if not relation.intra
        ),
        set_aside=dict(set_aside),
    )


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


def _count_relation(relation: Relation, edges: pl.DataFrame, users: int | None) -> RelationCounts:
    pairs = {Split(name): count for name, count in edges["split"].value_counts().iter_rows()}
    return RelationCounts(
        relation=relation.relation_id,
        description=relation.description,
        users=users,
        items=pl.concat([edges["item_a"], edges["item_b"]]).n_unique() if len(edges) else 0,
        pairs=_by_split(pairs),
    )


def _by_split(counts: Mapping[Split, int]) -> SplitCounts:
    return SplitCounts(**{split.value: counts.get(split, 0) for split in Split})
