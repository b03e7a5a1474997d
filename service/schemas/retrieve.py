"""Schemas of `POST /retrieve` and `POST /retrieve/batch`."""

from typing import Literal, Self

from pydantic import (
    BaseModel,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from model.item_limits import MAX_NAME_CHARACTERS, MAX_TEXT_CHARACTERS
from model.similarity import Similarity, View

from .attribute_filter import Filter, FilterUse
from .fields import (
    MAX_BATCH_QUESTIONS,
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
    Version,
)
from .problem import Problem

MAX_RESULTS = 100
"""Maximum number of results in a page."""
MAX_RESULT_DEPTH = 1_000
"""Maximum number of results to skip to reach a later page."""
RESULTS_PER_COST = 25
"""Number of results that are charged like one request. Putting them together takes about as long as the request."""
MAX_WEIGHTED_RELATIONS = 10
"""Maximum number of weighted relations in a request."""

Field_ = Literal["item_id", "title", "categories", "image_url", "description", "attributes"]
SUMMARY: tuple[Field_, ...] = ("item_id", "title", "categories", "image_url")


class WeightedRelation(Request):
    """One of several relations to combine, with its weight."""

    relation: AnyRelation = Field(
        description='ID of a relation, or `{"description": ...}` for a free-text relation'
    )
    weight: float = Field(
        1,
        gt=0,
        le=1000,
        description="weight relative to the other relations; only ratios matter",
    )


class Promoted(Request):
    """Items to promote, provided that they match the filters."""

    item_ids: list[ItemId] = Field(
        min_length=1, max_length=1000, fail_fast=True, description="IDs of the items to promote"
    )
    share: float = Field(
        gt=0,
        le=1,
        description="share of all places to reserve for promoted items, spread evenly; 0.2 reserves every fifth place",
    )


class RetrieveRequest(Request):
    """Request for the items related to a query: a catalogue item, several catalogue items, or a new item."""

    item_id: ItemId | None = Field(None, description="query: ID of a catalogue item")
    item_ids: list[ItemId] | None = Field(
        None,
        min_length=2,
        max_length=50,
        fail_fast=True,
        description="query: IDs of several catalogue items, whose vectors are averaged",
    )
    text: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_TEXT_CHARACTERS,
        description="query: text of a new item, such as its title and categories, with or without `picture`",
    )
    picture: Picture | None = Field(
        None,
        description="query: picture of a new item, with or without `text`; or upload it as a file in a multipart body",
    )
    attributes: Attributes = Field(
        default_factory=dict,
        description="attributes of a new item that filters can refer to, such as its price",
    )
    relation: AnyRelation | None = Field(
        None,
        description='ID of a relation from GET /relations, or `{"description": ...}` for a free-text relation, which '
        "requires an index built with `--token-store`. Without a relation, each result is scored under its best "
        "relation.",
        examples=["garden-home", {"description": "Worn together at the office."}],
    )
    relations: list[WeightedRelation] | None = Field(
        None,
        min_length=1,
        max_length=MAX_WEIGHTED_RELATIONS,
        description="several relations in place of `relation`; a score is the weighted mean of the scores under "
        "these relations",
    )
    k: int = Field(10, ge=1, le=MAX_RESULTS, description="maximum number of results")
    cursor: int = Field(
        0,
        ge=0,
        le=MAX_RESULT_DEPTH,
        description="number of results to skip: `next_cursor` of the previous page",
    )
    similarity: Similarity = Field(
        default_factory=lambda fields: _similarity(fields.get("text"), fields.get("picture")),
        description="views of the query and the result to compare: T is text, I is image, AVG is the weighted mean of "
        "both. The default is AVG, or TT for a new item without a picture and II for a new item without text.",
    )

    filter: dict[str, Filter] = Field(
        default_factory=dict,
        max_length=20,
        fail_fast=True,
        description="conditions, keyed by attribute name or `categories`; a result must meet all of them",
        examples=[{"price": {"min": 10, "below": {"query": "price"}}, "categories": {"any_of": ["Kitchen"]}}],
    )
    include: list[ItemId] | None = Field(
        None,
        max_length=10_000,
        fail_fast=True,
        description="IDs of the items to search; null for all items",
    )
    exclude: tuple[ItemId, ...] = Field(
        (), max_length=10_000, fail_fast=True, description="IDs of items to exclude"
    )
    group_by: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_NAME_CHARACTERS,
        description="attribute that has the same value for all variants of an item; only the best variant is returned",
    )
    diversity: float = Field(
        0,
        ge=0,
        lt=1,
        description="diversity of the results, by maximal marginal relevance (MMR): 0 ranks by score only, values near "
        "1 favour dissimilar items; first page only",
    )
    promoted: Promoted | None = Field(None, description="items to promote, and their share of the places")
    min_score: float = Field(-1.0, ge=-1, le=1, description="minimum score of a result, from -1 to 1")
    fallback: bool = Field(
        False,
        description="whether to fill the page with items that reach `min_score` under any other relation, if fewer "
        "than `k` items reach it under the requested relation; the added results have `fallback` true",
    )
    fields: tuple[Field_, ...] = Field(
        SUMMARY, min_length=1, max_length=6, fail_fast=True, description="fields to return for each item"
    )

    @property
    def cost(self) -> int:
        """Cost: 1 for each `RESULTS_PER_COST` results; twice that if they have more than the default fields."""
        return -(-self.k // RESULTS_PER_COST) * (1 if set(self.fields) <= set(SUMMARY) else 2)

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
                "similarity {similarity} needs the {lacks} of the query, but only the {sent} was sent.",
                {
                    "similarity": similarity.value,
                    "lacks": lacks,
                    "sent": "text" if picture is None else "picture",
                    "remedy": f"Send similarity {remedy}, include the {lacks}, or omit similarity.",
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
                {"remedy": "Send relation for one relation, or relations for several weighted relations."},
            )
        return relations

    @field_validator("diversity")
    @classmethod
    def _first_page(cls, diversity: float, info: ValidationInfo) -> float:
        if diversity and info.data.get("cursor"):
            raise PydanticCustomError(
                "first_page",
                "diversity is only available on the first page.",
                {"remedy": "Send cursor 0 with a larger k, or send diversity 0."},
            )
        return diversity

    @model_validator(mode="after")
    def _one_query(self) -> Self:
        new = self.text is not None or self.picture is not None
        ways = [self.item_id is not None, self.item_ids is not None, new]
        if sum(ways) != 1:
            raise PydanticCustomError(
                "one_query",
                "A request needs exactly one query: item_id, item_ids, or a new item (text, picture or both); {number} "
                "sent.",
                {
                    "number": "none was" if not any(ways) else "several were",
                    "remedy": "Send item_id for a catalogue item, item_ids for several, or text, picture or both for a "
                    "new item.",
                },
            )
        return self


def _similarity(text: object, picture: object) -> Similarity:
    if (text is None) == (picture is None):
        return Similarity.AVG
    return Similarity.TT if picture is None else Similarity.II


class RetrieveBatch(Request):
    """Batch of requests. Each is answered or rejected independently of the others."""

    questions: list[RetrieveRequest] = Field(
        min_length=1,
        max_length=MAX_BATCH_QUESTIONS,
        description="list of requests, each with the fields of POST /retrieve",
    )

    @property
    def cost(self) -> int:
        """Cost of all requests."""
        return sum(question.cost for question in self.questions)


class FoundItem(BaseModel):
    """Item of a result, with the requested `fields`; by default, all except `description` and `attributes`."""

    item_id: str | None = Field(None, description="ID of the item")
    title: str | None = Field(None, description="title of the item")
    categories: list[str] | None = Field(None, description="categories of the item, broadest first")
    image_url: str | None = Field(
        None, description="path of the picture on this server; null for an item without a picture"
    )
    description: str | None = Field(None, description="description of the item")
    attributes: dict[str, str | int | float | bool] | None = Field(
        None, description="attributes of the item by name"
    )


class RetrieveResult(BaseModel):
    """One retrieved item."""

    rank: Rank
    score: Score
    relation: str = Field(
        description="ID of the relation under which the item was found, or the description of a free-text relation"
    )
    promoted: bool = Field(description="whether the item holds a place reserved for promoted items")
    fallback: bool = Field(
        description="whether the item was found under a relation other than the requested one"
    )
    item: FoundItem


class SeveralItems(BaseModel):
    """Query of several catalogue items."""

    items: list[ItemSummary] = Field(description="items in the order of the request")


class Weighed(BaseModel):
    """One of several relations of the request."""

    relation: RelationSummary | RelationInWords = Field(description="relation from the request")
    weight: float = Field(gt=0, description="weight from the request")


class Familiarity(BaseModel):
    """Similarity of a free-text relation to the relations that the network was trained on."""

    description: str = Field(description="description of the free-text relation")
    nearest: RelationId
    cosine: float = Field(
        ge=-1, le=1, description="cosine similarity with the nearest trained relation, from -1 to 1"
    )
    far: bool = Field(
        description="whether the relation is out of distribution: so far from every trained relation that results may "
        "be poor"
    )


class Timings(BaseModel):
    """Time spent in each stage, in milliseconds, 0 for a stage that was skipped; and how a filter was used."""

    fetch: float = Field(ge=0, description="time to fetch a picture from its URL")
    encode: float = Field(
        ge=0, description="time to encode texts, pictures and relations, including time in the queue"
    )
    search: float = Field(ge=0, description="time to search, including time in the queue")
    filter: FilterUse | None = Field(
        description="how the filter was used; null for a request without a filter"
    )


class RetrieveAnswer(BaseModel):
    """Items related to the query, best first."""

    version: Version
    query: ItemSummary | SeveralItems | NewItemEcho = Field(description="query from the request")
    relation: RelationSummary | RelationInWords | list[Weighed] | None = Field(
        description="relation from the request; null if each result was scored under its best relation"
    )
    similarity: Similarity = Field(description="views of the query and the results that were compared")
    how: Literal["indexed", "encoded", "rescored"] = Field(
        description="source of the vectors. `indexed`: all from the index. `encoded`: the network encoded the query "
        "for this request. `rescored`: candidates for a free-text relation were rescored from their tokens; the scores "
        "are exact, but a few of the best items may be missing."
    )
    familiarity: list[Familiarity] = Field(description="one entry for each free-text relation in the request")
    fallback: str | None = Field(
        description="why the page contains results from other relations; null if it contains none"
    )
    took_ms: Milliseconds
    timings: Timings
    results: list[RetrieveResult] = Field(
        description="at most `k` results; items with equal scores are in catalogue order"
    )
    next_cursor: int | None = Field(ge=1, description="`cursor` of the next page; null on the last page")


class RetrieveReply(BaseModel):
    """Reply to one request of a batch: an answer or a problem."""

    status: int = Field(ge=200, le=599, description="HTTP status that POST /retrieve would return")
    answer: RetrieveAnswer | None = Field(description="answer to the request; null if it was rejected")
    problem: Problem | None = Field(description="reason for the rejection; null if there is an answer")


class RetrieveBatchAnswer(BaseModel):
    """Replies to a batch of requests."""

    replies: list[RetrieveReply] = Field(description="replies in the order of the requests")
