"""`POST /retrieve`, and many of its questions at once."""

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from model.similarity import Similarity, View

from .fields import (
    MAX_BATCH_QUESTIONS,
    MAX_NAME_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    AnyRelation,
    Attributes,
    ItemId,
    ItemSummary,
    Milliseconds,
    NewItemEcho,
    Picture,
    Rank,
    RelationId,
    RelationInWords,
    RelationSummary,
    Request,
    Score,
    Value,
    Version,
)
from .problem import Problem

MAX_RESULTS = 100
MAX_RESULT_DEPTH = 1_000
"""Results that may be passed over to get to a later page."""
MAX_WEIGHTED_RELATIONS = 10

Field_ = Literal["item_id", "title", "categories", "image_url", "description", "attributes"]
SUMMARY: tuple[Field_, ...] = ("item_id", "title", "categories", "image_url")


class OfQueryAttribute(Request):
    """A number of the item asked about, as in "cheaper than this": `{"query": "price"}`."""

    query: str = Field(
        min_length=1,
        max_length=MAX_NAME_CHARACTERS,
        description="name of an attribute of the item asked about",
    )
    times: float = Field(1, gt=0, le=1e6, description="factor it is multiplied by")


def _way_of_limiting(limit: object) -> str:
    return "of_query" if isinstance(limit, dict | OfQueryAttribute) else "number"


Limit = Annotated[
    Annotated[float, Tag("number")] | Annotated[OfQueryAttribute, Tag("of_query")],
    Discriminator(_way_of_limiting),
]
"""A number, or one of the item asked about."""


class Filter(Request):
    """What an attribute must be; all that is given must hold, and an item without the attribute is left out."""

    any_of: list[Value] | None = Field(
        None, min_length=1, max_length=1000, fail_fast=True, description="one of these values"
    )
    min: Limit | None = Field(
        None, description='a number of at least this; `{"query": "price"}` is that of the item asked about'
    )
    max: Limit | None = Field(None, description="a number of at most this")
    above: Limit | None = Field(None, description="a number of more than this")
    below: Limit | None = Field(None, description="a number of less than this")


class WeightedRelation(Request):
    """One of several relations that an item should go by."""

    relation: AnyRelation = Field(description='id of a relation, or `{"description": ...}`')
    weight: float = Field(
        1,
        gt=0,
        le=1000,
        description="what it weighs beside the others; only ratios count",
    )


class Promoted(Request):
    """Items that the shop wants to be seen, as far as they are selected."""

    item_ids: list[ItemId] = Field(
        min_length=1, max_length=1000, fail_fast=True, description="ids of the promoted items"
    )
    share: float = Field(
        gt=0, le=1, description="share of the places they are given, spread evenly; 0.2 is every fifth"
    )


class RetrieveRequest(Request):
    """Ask which items go with one of the catalogue, several, or a new one, under one relation, several, or the best."""

    item_id: ItemId | None = Field(
        None, description="id of an item of the catalogue; or else one of the below"
    )
    item_ids: list[ItemId] | None = Field(
        None,
        min_length=2,
        max_length=50,
        fail_fast=True,
        description="ids of several items at once, whose mean is looked for",
    )
    text: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_TEXT_CHARACTERS,
        description="a new item in words, such as its title and categories; with or without `picture`",
    )
    picture: Picture | None = Field(
        None,
        description="the picture of a new item; with or without `text`. Or upload it: see the multipart body",
    )
    attributes: Attributes = Field(
        default_factory=dict, description="what filters may refer to of a new item, such as its price"
    )
    relation: AnyRelation | None = Field(
        None,
        description='id of a relation, one of GET /relations; or `{"description": ...}`, any relation in words, where '
        "the index was built with --token-store. Without any, each result is found under the one that suits it best",
        examples=["garden-home", {"description": "Worn together at the office."}],
    )
    relations: list[WeightedRelation] | None = Field(
        None,
        min_length=1,
        max_length=MAX_WEIGHTED_RELATIONS,
        description="several relations at once, in place of `relation`: scores are weighted means",
    )
    k: int = Field(10, ge=1, le=MAX_RESULTS, description="number of results, at most")
    cursor: int = Field(
        0, ge=0, le=MAX_RESULT_DEPTH, description="results to pass over: `next_cursor` of the page before"
    )
    similarity: Similarity = Field(
        default_factory=lambda fields: _similarity(fields.get("text"), fields.get("picture")),
        description="(query, target) views compared: T text, I image, AVG the mean of both. Unless given AVG, but TT "
        "for a text and II for a picture alone, which have no other view",
    )

    filter: dict[str, Filter] = Field(
        default_factory=dict,
        max_length=20,
        fail_fast=True,
        description="conditions on attributes by their names, or on `categories`; all must be met",
        examples=[{"price": {"min": 10, "below": {"query": "price"}}, "categories": {"any_of": ["Kitchen"]}}],
    )
    include: list[ItemId] | None = Field(
        None, max_length=10_000, fail_fast=True, description="ids of the only items wanted; null: all"
    )
    exclude: tuple[ItemId, ...] = Field(
        (), max_length=10_000, fail_fast=True, description="ids of items that are not wanted"
    )
    group_by: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_NAME_CHARACTERS,
        description="attribute in which variants of one item are equal; of these, only the best is found",
    )
    diversity: float = Field(
        0,
        ge=0,
        lt=1,
        description="from 0, by score alone, towards 1, as unlike one another as can be; on the first page only",
    )
    promoted: Promoted | None = Field(None, description="items that are given a share of the places")
    min_score: float = Field(-1.0, ge=-1, le=1, description="least score, from -1 to 1, of a result")
    fallback: bool = Field(
        False,
        description="whether places are filled, where fewer than k items reach `min_score` under the relation, with "
        "those that reach it under any other; results and answer say so",
    )
    fields: tuple[Field_, ...] = Field(
        SUMMARY, min_length=1, max_length=6, fail_fast=True, description="what is told of each item found"
    )

    @field_validator("similarity")
    @classmethod
    def _has_what_is_compared(cls, similarity: Similarity, info: ValidationInfo) -> Similarity:
        text, picture = info.data.get("text"), info.data.get("picture")
        if (text is None) == (picture is None):
            return similarity
        has, lacks, remedy = (
            (View.TEXT, "picture", "TT or TI") if picture is None else (View.IMAGE, "text", "II or IT")
        )
        if similarity.views[0] is not has:
            raise PydanticCustomError(
                f"no_{lacks}",
                "similarity {similarity} needs a {lacks} of the query, and a {sent} has none.",
                {
                    "similarity": similarity.value,
                    "lacks": lacks,
                    "sent": "text" if picture is None else "picture",
                    "remedy": f"Send {remedy}, send a {lacks} as well, or leave similarity out.",
                },
            )
        return similarity

    @field_validator("relations")
    @classmethod
    def _one_naming(
        cls, relations: list[WeightedRelation] | None, info: ValidationInfo
    ) -> list[WeightedRelation] | None:
        if relations is not None and info.data.get("relation") is not None:
            raise PydanticCustomError(
                "one_naming",
                "relation and relations were both sent.",
                {"remedy": "Send relation for one, or relations for several with their weights."},
            )
        return relations

    @field_validator("diversity")
    @classmethod
    def _first_page(cls, diversity: float, info: ValidationInfo) -> float:
        if diversity and info.data.get("cursor"):
            raise PydanticCustomError(
                "first_page",
                "diversity chooses among the best as a whole, so that there is no second page.",
                {"remedy": "Send cursor 0 and a larger k, or diversity 0."},
            )
        return diversity

    @model_validator(mode="after")
    def _one_query(self) -> Self:
        new = self.text is not None or self.picture is not None
        ways = [self.item_id is not None, self.item_ids is not None, new]
        if sum(ways) != 1:
            raise PydanticCustomError(
                "one_query",
                "Exactly one of item_id, item_ids, and text or picture is needed; {number} sent.",
                {
                    "number": "none was" if not any(ways) else "several were",
                    "remedy": "Send item_id for an item of the catalogue, item_ids for several, text or picture for a "
                    "new one.",
                },
            )
        return self


def _similarity(text: object, picture: object) -> Similarity:
    if (text is None) == (picture is None):
        return Similarity.AVG
    return Similarity.TT if picture is None else Similarity.II


class RetrieveBatch(Request):
    """Many questions at once; each is answered, or refused, by itself."""

    questions: list[RetrieveRequest] = Field(
        min_length=1, max_length=MAX_BATCH_QUESTIONS, description="each as POST /retrieve takes it"
    )


class FoundItem(BaseModel):
    """What was asked for of an item found: `fields`, or all but description and attributes."""

    item_id: str | None = Field(None, description="id of the item")
    title: str | None = Field(None, description="what the item is called")
    categories: list[str] | None = Field(None, description="its categories, the broadest first")
    image_url: str | None = Field(None, description="path of its picture on this server")
    description: str | None = Field(None, description="what the shop says about it")
    attributes: dict[str, str | int | float | bool] | None = Field(
        None, description="what else is stored of it"
    )


class RetrieveResult(BaseModel):
    """One item found."""

    rank: Rank
    score: Score
    relation: str = Field(
        description="id of the relation that it was found under, or the words of one in words"
    )
    promoted: bool = Field(description="whether it stands here because it is promoted")
    fallback: bool = Field(description="whether it was found under another relation than that asked about")
    item: FoundItem


class SeveralItems(BaseModel):
    """Several items that were asked about at once."""

    items: list[ItemSummary] = Field(description="in the order they were sent")


class Weighed(BaseModel):
    """One of several relations that were asked about."""

    relation: RelationSummary | RelationInWords = Field(description="as it was named")
    weight: float = Field(gt=0, description="as it was sent")


class Familiarity(BaseModel):
    """How near a relation in words is to what the network was trained on."""

    description: str = Field(description="the relation in words")
    nearest: RelationId
    cosine: float = Field(ge=-1, le=1, description="cosine with the nearest relation, from -1 to 1")
    far: bool = Field(
        description="whether it is further from all relations than these are from one another: then do not expect much"
    )


class Timings(BaseModel):
    """Where the time went, in milliseconds; stages that did not happen are 0."""

    fetch: float = Field(ge=0, description="fetching a picture by its URL, in milliseconds")
    encode: float = Field(ge=0, description="the network on texts, pictures and relations, waiting included")
    search: float = Field(ge=0, description="search, waiting included")


class RetrieveAnswer(BaseModel):
    """Items that go with the query under the relation, best first."""

    version: Version
    query: ItemSummary | SeveralItems | NewItemEcho = Field(description="what was asked about")
    relation: RelationSummary | RelationInWords | list[Weighed] | None = Field(
        description="as it was named; null where each result was found under the one that suits it best"
    )
    similarity: Similarity = Field(description="the (query, target) views that were compared")
    how: Literal["indexed", "encoded", "rescored"] = Field(
        description="where the vectors came from: the index (`indexed`), that of the query from the network just now "
        "(`encoded`), or, for a relation in words, all from tokens just now (`rescored`): scores are exact, and "
        "nearly all of the best are found"
    )
    familiarity: list[Familiarity] = Field(description="one for each relation in words")
    fallback: str | None = Field(
        description="where the relation was too thin for the item and others filled the places: why, in a sentence"
    )
    took_ms: Milliseconds
    timings: Timings
    results: list[RetrieveResult] = Field(description="at most k; equal scores stand in catalogue order")
    next_cursor: int | None = Field(ge=1, description="`cursor` of the page that follows; null at the end")


class RetrieveReply(BaseModel):
    """The answer to one question of many, or why there is none."""

    status: int = Field(ge=200, le=599, description="the HTTP status that POST /retrieve would have had")
    answer: RetrieveAnswer | None = Field(description="null where there is none")
    problem: Problem | None = Field(description="null where there is an answer")


class RetrieveBatchAnswer(BaseModel):
    """The answers to many questions."""

    replies: list[RetrieveReply] = Field(description="in the order of the questions")
