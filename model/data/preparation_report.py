"""Report of `rcml prepare`: kept and skipped items, the filtered log and the related pairs, as JSON and Markdown."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from model.markdown_table import table
from model.records import Edge, Item, Relation, Split


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


def count_prepared(
    items: Sequence[Item],
    splits: Sequence[Split],
    relations: Sequence[Relation],
    edges: Sequence[Edge],
    edges_across_kept: int,
    log_counts: Mapping[str, int],
    users: Mapping[str, int],
    set_aside: Mapping[str, str],
) -> PreparationReport:
    """Create the report; `users` maps the ID of each relation to the number of users in its cluster.

    `edges_across_kept` is the number of edges between a training item and a held-out item. All other edges across
    splits in `log_counts` were dropped.
    """
    pictured = Counter(split for item, split in zip(items, splits, strict=True) if item.picture)
    relations_of_pair = Counter((edge.item_a, edge.item_b) for edge in edges)
    edges_of_relation: dict[str, list[Edge]] = defaultdict(list)
    for edge in edges:
        edges_of_relation[edge.relation_id].append(edge)
    return PreparationReport(
        items=ItemCounts(
            kept=len(items),
            text_only=sum(not item.picture for item in items),
            **_by_split(pictured).model_dump(),
        ),
        log=dict(log_counts),
        pairs=len(relations_of_pair),
        pairs_of_one_relation=sum(count == 1 for count in relations_of_pair.values()),
        edges_across_kept=edges_across_kept,
        edges_across_dropped=log_counts.get("edges_across_splits", 0) - edges_across_kept,
        relations=tuple(
            _count_relation(
                relation, edges_of_relation[relation.relation_id], users.get(relation.relation_id)
            )
            for relation in relations
            if not relation.intra
        ),
        set_aside=dict(set_aside),
    )


def _count_relation(relation: Relation, edges: Sequence[Edge], users: int | None) -> RelationCounts:
    return RelationCounts(
        relation=relation.relation_id,
        description=relation.description,
        users=users,
        items=len({item for edge in edges for item in (edge.item_a, edge.item_b)}),
        pairs=_by_split(Counter(edge.split for edge in edges)),
    )


def _by_split(counts: Mapping[Split, int]) -> SplitCounts:
    return SplitCounts(**{split.value: counts.get(split, 0) for split in Split})


def preparation_markdown(report: PreparationReport) -> str:
    """Format the report as Markdown."""
    items = report.items
    text_only = (
        f", {items.text_only} without a picture (indexed, but not trained on)" if items.text_only else ""
    )
    lines = [
        "# Prepared data",
        "",
        f"{items.kept} items: {items.train} for training, {items.validation} for early stopping, "
        f"{items.test} for evaluation{text_only}. {report.pairs} related pairs within the splits; "
        f"{report.pairs_of_one_relation} of them have only one relation.",
        "",
        f"{report.edges_across_kept} edges between a training item and a validation or test item are kept for "
        f"evaluation. {report.edges_across_dropped} edges between a validation item and a test item were dropped.",
        "",
        *(f"- {name.replace('_', ' ')}: {value}" for name, value in report.log.items()),
        "",
        *table(
            ["relation", "users", "items", "train pairs", "validation pairs", "test pairs"],
            (
                [
                    f"`{row.relation}`",
                    "" if row.users is None else str(row.users),
                    *map(str, (row.items, row.pairs.train, row.pairs.validation, row.pairs.test)),
                ]
                for row in report.relations
            ),
        ),
        "",
        *(f"- **{row.relation}**: {row.description}" for row in report.relations),
        "",
        "## Skipped",
        "",
        *(f"- `{item_id}`: {reason}" for item_id, reason in report.set_aside.items()),
    ]
    if not report.set_aside:
        lines.append("None.")
    return "\n".join(lines) + "\n"
