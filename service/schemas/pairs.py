"""Schemas of `POST /relation-type` and `POST /validity`, which take two items."""

from pydantic import BaseModel, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from model.similarity import Similarity

from .fields import (
    MAX_BATCH_QUESTIONS,
    AnyItem,
    ItemSummary,
    Milliseconds,
    NewItem,
    NewItemEcho,
    Probability,
    Rank,
    RelationId,
    RelationSummary,
    Request,
    Score,
    Version,
)
from .problem import Problem


class PairRequest(Request):
    """Two different items, each from the catalogue or new."""

    item_a: AnyItem = Field(
        description="ID of a catalogue item, or a new item with `text`, `picture` or both",
        examples=["mug-1", {"text": "Red striped mug"}],
    )
    item_b: AnyItem = Field(description="ID of the other catalogue item, or a new item")

    @field_validator("item_b")
    @classmethod
    def _different(cls, item_b: str | NewItem, info: ValidationInfo) -> str | NewItem:
        if isinstance(item_b, str) and item_b == info.data.get("item_a"):
            raise PydanticCustomError(
                "same_item",
                "item_b is the same item as item_a, but a relation links two different items.",
                {"remedy": "Send two different items, or use POST /retrieve with a single item."},
            )
        return item_b


class RelationTypeRequest(PairRequest):
    """Request to rank the relations between two items."""

    similarity: Similarity | None = Field(
        None,
        description="views of item_a and item_b to compare: T is text, I is image, AVG is the weighted mean of both. "
        "The default is AVG. If a new item has only text or only a picture, the default is a pair of views that exist.",
    )

    @field_validator("similarity")
    @classmethod
    def _has_what_is_compared(cls, similarity: Similarity | None, info: ValidationInfo) -> Similarity | None:
        if similarity is None:
            return None
        for name, view in zip(("item_a", "item_b"), similarity.views, strict=True):
            item = info.data.get(name)
            if isinstance(item, NewItem) and (lacks := item.lacks(view)):
                raise PydanticCustomError(
                    f"no_{lacks}",
                    "similarity {similarity} needs the {lacks} of {name}, but {name} has none.",
                    {
                        "similarity": similarity.value,
                        "lacks": lacks,
                        "name": name,
                        "remedy": f"Send the {lacks} of {name}, or omit similarity.",
                    },
                )
        return similarity


class ValidityRequest(PairRequest):
    """Request to validate a relation between two items."""

    relation: RelationId


class RelationTypeBatch(Request):
    """Batch of requests. Each is answered or rejected independently of the others."""

    questions: list[RelationTypeRequest] = Field(
        min_length=1,
        max_length=MAX_BATCH_QUESTIONS,
        description="list of requests, each with the fields of POST /relation-type",
    )

    @property
    def cost(self) -> int:
        """Cost: 1 for each pair."""
        return len(self.questions)


class ValidityBatch(Request):
    """Batch of requests. Each is answered or rejected independently of the others."""

    questions: list[ValidityRequest] = Field(
        min_length=1,
        max_length=MAX_BATCH_QUESTIONS,
        description="list of requests, each with the fields of POST /validity",
    )

    @property
    def cost(self) -> int:
        """Cost: 1 for each pair."""
        return len(self.questions)


class RankedRelation(BaseModel):
    """Relation with its score and probability for the two items."""

    rank: Rank
    score: Score
    probability: Probability = Field(
        description="probability that this relation is the one that links the two items, from 0 to 1; the "
        "probabilities add up to 1"
    )
    relation: RelationSummary


class RelationTypeAnswer(BaseModel):
    """Relations between two items, most probable first."""

    version: Version
    item_a: ItemSummary | NewItemEcho = Field(description="item from the request")
    item_b: ItemSummary | NewItemEcho = Field(description="item from the request")
    similarity: Similarity = Field(description="views of item_a and item_b that were compared")
    calibration: str = Field(
        description="version of the calibration of the probabilities; `none` if they are not calibrated"
    )
    took_ms: Milliseconds
    relations: list[RankedRelation] = Field(description="all relations except the intra-sample relation")


class RelationTypeReply(BaseModel):
    """Reply to one request of a batch: an answer or a problem."""

    status: int = Field(ge=200, le=599, description="HTTP status that POST /relation-type would return")
    answer: RelationTypeAnswer | None = Field(description="answer to the request; null if it was rejected")
    problem: Problem | None = Field(description="reason for the rejection; null if there is an answer")


class RelationTypeBatchAnswer(BaseModel):
    """Replies to a batch of requests."""

    replies: list[RelationTypeReply] = Field(description="replies in the order of the requests")


class ValidityAnswer(BaseModel):
    """Probability that a relation holds between two items, in either order, and the resulting decision."""

    version: Version
    item_a: ItemSummary | NewItemEcho = Field(description="item from the request")
    item_b: ItemSummary | NewItemEcho = Field(description="item from the request")
    relation: RelationSummary
    probability: Probability = Field(description="probability that the relation holds, from 0 to 1")
    valid: bool = Field(description="whether `probability` is at least `threshold`")
    threshold: Probability = Field(description="minimum probability for `valid` to be true")
    calibration: str = Field(
        description="version of the calibration of the probability; `none` if it is not calibrated"
    )
    took_ms: Milliseconds


class ValidityReply(BaseModel):
    """Reply to one request of a batch: an answer or a problem."""

    status: int = Field(ge=200, le=599, description="HTTP status that POST /validity would return")
    answer: ValidityAnswer | None = Field(description="answer to the request; null if it was rejected")
    problem: Problem | None = Field(description="reason for the rejection; null if there is an answer")


class ValidityBatchAnswer(BaseModel):
    """Replies to a batch of requests."""

    replies: list[ValidityReply] = Field(description="replies in the order of the requests")
