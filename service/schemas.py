"""What requests and answers look like, field by field; the OpenAPI document is made from this file."""

from typing import Annotated, Literal, Self
from urllib.parse import quote

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from indexes.attributes import Condition
from indexes.selection import Selection
from model.records import Attribute, Item, Relation, Similarity, View

MOST_RESULTS = 100
MOST_CHARACTERS = 512

ItemId = Annotated[
    str, Field(min_length=1, max_length=MOST_CHARACTERS, description="id of an item of the catalogue")
]
RelationId = Annotated[
    str,
    Field(min_length=1, max_length=MOST_CHARACTERS, description="id of a relation, one of GET /relations"),
]
Score = Annotated[float, Field(ge=-1, le=1, description="cosine similarity, from -1 to 1; larger is better")]
Milliseconds = Annotated[float, Field(ge=0, description="time the engine took, in milliseconds")]
Rank = Annotated[int, Field(ge=1, description="place in the ranking, from 1")]


class Request(BaseModel):
    """What all request bodies have in common: unknown fields are refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Filter(Request):
    """What an attribute must be; all that is given must hold, and an item without the attribute is left out."""

    any_of: list[StrictStr | StrictBool | StrictInt | StrictFloat] | None = Field(
        None, min_length=1, max_length=1000, description="one of these values"
    )
    min: float | None = Field(None, allow_inf_nan=False, description="a number of at least this")
    max: float | None = Field(None, allow_inf_nan=False, description="a number of at most this")

    @property
    def condition(self) -> Condition:
        """As the index understands it."""
        return Condition(None if self.any_of is None else frozenset(self.any_of), self.min, self.max)


class RelationInWords(Request):
    """A relation that need not be known: any in plain English."""

    description: str = Field(
        min_length=1,
        max_length=2000,
        description="the relation in words, best worded like those of GET /relations",
        examples=["Worn together at the office."],
    )


def _way_of_naming(relation: object) -> str:
    return "words" if isinstance(relation, dict | RelationInWords) else "id"


AnyRelation = Annotated[
    Annotated[RelationId, Tag("id")] | Annotated[RelationInWords, Tag("words")], Discriminator(_way_of_naming)
]
"""A relation by its id, or in words; pydantic puts the tag into the location of an error."""

RELATION_TAGS = frozenset({"id", "words"})


class RetrieveRequest(Request):
    """Ask which items go with one under a relation: with one of the catalogue, or with a new one in words."""

    item_id: ItemId | None = Field(None, description="id of an item of the catalogue; or else give `text`")
    text: str | None = Field(
        None,
        min_length=1,
        max_length=2000,
        description="a new item in words, such as its title and categories",
    )
    relation: AnyRelation = Field(
        description='id of a relation, one of GET /relations; or `{"description": ...}`, any relation in words, where '
        "the index was built with --token-store",
        examples=["garden-home", {"description": "Worn together at the office."}],
    )
    k: StrictInt = Field(10, ge=1, le=MOST_RESULTS, description="number of results, at most")
    similarity: Similarity = Field(
        default_factory=lambda fields: Similarity.TT if fields.get("text") else Similarity.AVG,
        description="(query, target) views compared: T text, I image, AVG the mean of both; "
        "AVG for an item and TT for a text unless given; a text has no picture, so only TT and TI",
    )

    filter: dict[str, Filter] = Field(
        default_factory=dict,
        max_length=20,
        description="conditions on attributes by their names, or on `categories`; all must be met",
        examples=[{"price": {"min": 10, "max": 50}, "categories": {"any_of": ["Kitchen"]}}],
    )
    include: list[ItemId] | None = Field(
        None, max_length=10_000, description="ids of the only items wanted; null: all"
    )
    exclude: list[ItemId] = Field([], max_length=10_000, description="ids of items that are not wanted")
    group_by: str | None = Field(
        None,
        min_length=1,
        max_length=MOST_CHARACTERS,
        description="attribute in which variants of one item are equal; of these, only the best is found",
    )
    diversity: float = Field(
        0, ge=0, lt=1, description="from 0, by score alone, towards 1, as unlike one another as can be"
    )

    @property
    def selection(self) -> Selection:
        """Which items are wanted, as the index understands it."""
        return Selection(
            None if self.include is None else frozenset(self.include),
            frozenset(self.exclude),
            {name: condition.condition for name, condition in self.filter.items()},
            self.group_by,
            self.diversity,
        )

    @field_validator("similarity")
    @classmethod
    def _text_has_no_picture(cls, similarity: Similarity, info: ValidationInfo) -> Similarity:
        if info.data.get("text") is not None and similarity.views[0] is not View.TEXT:
            raise PydanticCustomError(
                "text_has_no_picture",
                "similarity {similarity} needs a picture of the query, and a text has none.",
                {"similarity": similarity.value, "remedy": "Send TT or TI, or leave similarity out."},
            )
        return similarity

    @model_validator(mode="after")
    def _one_query(self) -> Self:
        if (self.item_id is None) == (self.text is None):
            raise PydanticCustomError(
                "one_query",
                "Exactly one of item_id and text is needed; {number} sent.",
                {
                    "number": "neither was" if self.text is None else "both were",
                    "remedy": "Send item_id for an item of the catalogue, or text for a new one.",
                },
            )
        return self


class PairRequest(Request):
    """Two different items."""

    item_a: ItemId
    item_b: ItemId

    @field_validator("item_b")
    @classmethod
    def _different(cls, item_b: str, info: ValidationInfo) -> str:
        if item_b == info.data.get("item_a"):
            raise PydanticCustomError(
                "same_item",
                "item_b is the same item as item_a, and a relation is asked for between two.",
                {"remedy": "Send two different items; POST /retrieve asks about one."},
            )
        return item_b


class RelationTypeRequest(PairRequest):
    """Ask which relation links two items."""

    similarity: Similarity = Field(
        Similarity.AVG, description="(item_a, item_b) views compared: T text, I image, AVG the mean of both"
    )


class ValidityRequest(PairRequest):
    """Ask whether a relation holds between two items."""

    relation: RelationId


class ItemSummary(BaseModel):
    """An item as it stands in an answer."""

    item_id: ItemId
    title: str = Field(description="what the item is called")
    categories: list[str] = Field(description="its categories, the broadest first")
    image_url: str | None = Field(
        description="path of its picture on this server; null for an item of words alone"
    )

    @classmethod
    def of(cls, item: Item) -> Self:
        """The summary of an item."""
        return cls(
            item_id=item.item_id,
            title=item.title,
            categories=list(item.categories),
            image_url=f"/items/{quote(item.item_id, safe='')}/image" if item.picture else None,
        )


class ItemDetail(ItemSummary):
    """An item with all that the catalogue knows of it."""

    description: str = Field(description="what the shop says about it; may be empty")
    attributes: dict[str, Attribute] = Field(description="what else is stored of it, such as its price")

    @classmethod
    def of(cls, item: Item) -> Self:
        """All about an item."""
        return cls(
            **ItemSummary.of(item).model_dump(),
            description=item.description,
            attributes=dict(item.attributes),
        )


class ItemPage(BaseModel):
    """A stretch of the catalogue."""

    items: list[ItemSummary] = Field(description="items in catalogue order")
    total: int = Field(ge=0, description="number of items in the whole catalogue")
    next_cursor: int | None = Field(ge=1, description="`cursor` of the stretch that follows; null at the end")


class TextQuery(BaseModel):
    """A query given in words."""

    text: str = Field(description="the words that were sent")


class RelationSummary(BaseModel):
    """A relation as it stands in an answer."""

    relation_id: RelationId
    description: str = Field(description="the relation in plain English, as the network reads it")

    @classmethod
    def of(cls, relation: Relation) -> Self:
        """The summary of a relation."""
        return cls(relation_id=relation.relation_id, description=relation.description)


class RelationDetail(RelationSummary):
    """A relation with all that the index knows of it."""

    intra: bool = Field(description="whether it relates an item to itself: under it, look-alikes are found")
    pairs: int | None = Field(
        ge=0, description="pairs of items known under it when the index was made; null where intra is true"
    )


class RelationList(BaseModel):
    """All relations that questions may name."""

    in_words: bool = Field(
        description="whether POST /retrieve also takes a relation in words, one that is not listed"
    )
    relations: list[RelationDetail] = Field(description="the relation of an item with itself comes first")


class RetrieveResult(BaseModel):
    """One item found."""

    rank: Rank
    score: Score
    item: ItemSummary


class RetrieveAnswer(BaseModel):
    """Items that go with the query under the relation, best first."""

    query: ItemSummary | TextQuery = Field(description="what was asked about")
    relation: RelationSummary | RelationInWords = Field(description="as it was named")
    similarity: Similarity = Field(description="the (query, target) views that were compared")
    how: Literal["indexed", "encoded", "rescored"] = Field(
        description="where the vectors came from: the index (`indexed`), that of the query from the network just now "
        "(`encoded`), or, for a relation in words, all from tokens just now (`rescored`): scores are exact, and "
        "nearly all of the best are found"
    )
    took_ms: Milliseconds
    results: list[RetrieveResult] = Field(description="at most k; equal scores stand in catalogue order")


class RankedRelation(BaseModel):
    """One relation, and how near the two items are under it."""

    rank: Rank
    score: Score
    relation: RelationSummary


class RelationTypeAnswer(BaseModel):
    """All relations between different items, the likeliest link of these two first."""

    item_a: ItemSummary
    item_b: ItemSummary
    similarity: Similarity = Field(description="the (item_a, item_b) views that were compared")
    took_ms: Milliseconds
    relations: list[RankedRelation] = Field(description="every relation but that of an item with itself")


class ValidityAnswer(BaseModel):
    """Whether the relation holds; the order of the two items does not matter."""

    item_a: ItemSummary
    item_b: ItemSummary
    relation: RelationSummary
    probability: float = Field(ge=0, le=1, description="probability that the relation holds, from 0 to 1")
    valid: bool = Field(description="the decision: whether probability reaches the threshold")
    threshold: float = Field(ge=0, le=1, description="probability from which the relation is said to hold")
    took_ms: Milliseconds


class Live(BaseModel):
    """The process runs."""

    status: Literal["live"] = "live"


class Ready(BaseModel):
    """Questions can be answered."""

    status: Literal["ready"] = "ready"
    items: int = Field(ge=0, description="number of items in the catalogue")
    relations: int = Field(ge=1, description="number of relations")
    device: str = Field(description="where new texts are encoded: cpu, or cuda and its name")
    index: str = Field(description="digest of the index, SHA-256 in hexadecimal")
    checkpoint: str = Field(description="digest of the checkpoint it was made from, SHA-256 in hexadecimal")
