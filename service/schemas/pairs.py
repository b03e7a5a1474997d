"""`POST /relation-type` and `POST /validity`: questions about two items."""

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
    """Two different items, each of the catalogue or new."""

    item_a: AnyItem = Field(
        description="id of an item of the catalogue, or a new one: `text`, `picture` or both",
        examples=["mug-1", {"text": "Red striped mug"}],
    )
    item_b: AnyItem = Field(description="the other item: id, or a new one")

    @field_validator("item_b")
    @classmethod
    def _different(cls, item_b: str | NewItem, info: ValidationInfo) -> str | NewItem:
        if isinstance(item_b, str) and item_b == info.data.get("item_a"):
            raise PydanticCustomError(
                "same_item",
                "item_b is the same item as item_a, and a relation is asked for between two.",
                {"remedy": "Send two different items; POST /retrieve asks about one."},
            )
        return item_b


class RelationTypeRequest(PairRequest):
    """Ask which relation links two items."""

    similarity: Similarity | None = Field(
        None,
        description="(item_a, item_b) views compared: T text, I image, AVG the mean of both. Unless given AVG, or what "
        "both items have of text and picture",
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
                    "similarity {similarity} needs a {lacks} of {name}, which has none.",
                    {
                        "similarity": similarity.value,
                        "lacks": lacks,
                        "name": name,
                        "remedy": f"Send a {lacks} of {name} as well, or leave similarity out.",
                    },
                )
        return similarity


class ValidityRequest(PairRequest):
    """Ask whether a relation holds between two items."""

    relation: RelationId


class RelationTypeBatch(Request):
    """Many questions at once; each is answered, or refused, by itself."""

    questions: list[RelationTypeRequest] = Field(
        min_length=1, max_length=MAX_BATCH_QUESTIONS, description="each as POST /relation-type takes it"
    )


class ValidityBatch(Request):
    """Many questions at once; each is answered, or refused, by itself."""

    questions: list[ValidityRequest] = Field(
        min_length=1, max_length=MAX_BATCH_QUESTIONS, description="each as POST /validity takes it"
    )


class RankedRelation(BaseModel):
    """One relation, and how near the two items are under it."""

    rank: Rank
    score: Score
    probability: Probability = Field(
        description="probability that of all relations this one links the two, from 0 to 1; they add up to 1"
    )
    relation: RelationSummary


class RelationTypeAnswer(BaseModel):
    """All relations between different items, the likeliest link of these two first."""

    version: Version
    item_a: ItemSummary | NewItemEcho = Field(description="as it was asked about")
    item_b: ItemSummary | NewItemEcho = Field(description="as it was asked about")
    similarity: Similarity = Field(description="the (item_a, item_b) views that were compared")
    calibration: str = Field(
        description="version of the calibration of the probabilities; none: not calibrated"
    )
    took_ms: Milliseconds
    relations: list[RankedRelation] = Field(description="every relation but that of an item with itself")


class RelationTypeReply(BaseModel):
    """The answer to one question of many, or why there is none."""

    status: int = Field(ge=200, le=599, description="the HTTP status that POST /relation-type would have had")
    answer: RelationTypeAnswer | None = Field(description="null where there is none")
    problem: Problem | None = Field(description="null where there is an answer")


class RelationTypeBatchAnswer(BaseModel):
    """The answers to many questions."""

    replies: list[RelationTypeReply] = Field(description="in the order of the questions")


class ValidityAnswer(BaseModel):
    """Whether the relation holds; the order of the two items does not matter."""

    version: Version
    item_a: ItemSummary | NewItemEcho = Field(description="as it was asked about")
    item_b: ItemSummary | NewItemEcho = Field(description="as it was asked about")
    relation: RelationSummary
    probability: Probability = Field(description="probability that the relation holds, from 0 to 1")
    valid: bool = Field(description="the decision: whether probability reaches the threshold")
    threshold: Probability = Field(description="probability from which the relation is said to hold")
    calibration: str = Field(
        description="version of the calibration of the probability; none: not calibrated"
    )
    took_ms: Milliseconds


class ValidityReply(BaseModel):
    """The answer to one question of many, or why there is none."""

    status: int = Field(ge=200, le=599, description="the HTTP status that POST /validity would have had")
    answer: ValidityAnswer | None = Field(description="null where there is none")
    problem: Problem | None = Field(description="null where there is an answer")


class ValidityBatchAnswer(BaseModel):
    """The answers to many questions."""

    replies: list[ValidityReply] = Field(description="in the order of the questions")
