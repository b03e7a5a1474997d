"""Content of the report of `rcml prepare`: the models of `report.json`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


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


class CategoryShare(BaseModel):
    """Category of a relation: its share of what the users took, and the lift, this share divided by that of all users.

    If the edges are ready-made, what counts are the items of the edges.
    """

    model_config = ConfigDict(frozen=True)

    category: str
    share: float
    lift: float


class PairedItem(BaseModel):
    """Item of a sample pair; `picture` is a path in the prepared folder."""

    model_config = ConfigDict(frozen=True)

    item_id: str
    title: str
    picture: str


class SamplePair(BaseModel):
    """Related pair, shown as an example. `support` and `npmi` are those of the edge; None if it is ready-made."""

    model_config = ConfigDict(frozen=True)

    first: PairedItem
    second: PairedItem
    support: int | None = None
    npmi: float | None = None


class RelationCounts(BaseModel):
    """Counts for one relation: its users (None for ready-made edges), its items and its pairs.

    `categories` are those that matter most, by share x lift. `samples` are pairs from the highest to the lowest NPMI.
    """

    model_config = ConfigDict(frozen=True)

    relation: str
    description: str
    users: int | None
    items: int
    pairs: SplitCounts
    categories: tuple[CategoryShare, ...] = ()
    samples: tuple[SamplePair, ...] = ()


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


class SkippedItems(BaseModel):
    """Items that were skipped for one reason; `examples` are the first IDs with the full reason."""

    model_config = ConfigDict(frozen=True)

    reason: str
    items: int
    examples: tuple[tuple[str, str], ...]


class FilterStep(BaseModel):
    """Interactions of the log that are left after one step, and the users and items if they were counted."""

    model_config = ConfigDict(frozen=True)

    step: str
    interactions: int
    users: int | None = None
    items: int | None = None


class Bin(BaseModel):
    """Number of users or items whose count lies between `least` and `most`, both included."""

    model_config = ConfigDict(frozen=True)

    least: int
    most: int
    count: int


class Distribution(BaseModel):
    """Histogram of a count, such as the items per user. The bins grow as 1, 2, 5, 10, 20, 50 and so on."""

    model_config = ConfigDict(frozen=True)

    name: str
    counted: str = Field(description="what a bin counts: users or items")
    median: float
    most: int
    bins: tuple[Bin, ...]


class Note(BaseModel):
    """Something that makes a training less worth its time, and what to change."""

    model_config = ConfigDict(frozen=True)

    text: str
    remedy: str
    serious: bool = Field(False, description="whether training is not worth its time before this is mended")


class PreparationVerdict(BaseModel):
    """Judgement on whether training is worth its time."""

    model_config = ConfigDict(frozen=True)

    training: Literal["worth", "doubtful", "not yet"]
    sentence: str
    notes: tuple[Note, ...]


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
    pairs_across: SplitCounts = Field(
        SplitCounts(train=0, validation=0, test=0),
        description="edges between a training item and a held-out item, by the split of the held-out item",
    )
    trained_items: int = Field(0, description="number of training items with at least one pair")
    filters: tuple[FilterStep, ...] = Field(
        (), description="steps of the log filters; empty for ready-made edges"
    )
    distributions: tuple[Distribution, ...] = ()
    skipped_items: tuple[SkippedItems, ...] = Field(
        (), description="the items of `set_aside`, grouped by reason"
    )
    verdict: PreparationVerdict | None = None
