"""Relations, listed and added."""

from typing import Literal

from pydantic import BaseModel, Field

from .fields import MAX_TEXT_CHARACTERS, RelationId, RelationSummary, Request

RelationState = Literal["waiting", "embedding", "indexed", "failed"]


class NewRelation(Request):
    """A relation in words, to be made one of the index."""

    relation_id: RelationId = Field(description="what questions will call it; one that is not used yet")
    description: str = Field(
        min_length=1,
        max_length=MAX_TEXT_CHARACTERS,
        description="the relation in words, best worded like those of GET /relations",
        examples=["Worn together at the office."],
    )


class MeasuredQuality(BaseModel):
    """What `rcml evaluate` measured of a relation on items that no training saw."""

    queries: int = Field(ge=0, description="number of test questions that hit_at_5 is of; few make it rough")
    hit_at_5: float | None = Field(
        ge=0, le=1, description="share of them with a right item among the best 5; null where there are none"
    )
    claims: int = Field(ge=0, description="number of test claims that the figures of validity are of")
    validity_auc: float | None = Field(
        ge=0,
        le=1,
        description="probability that a true claim is held for surer than a false one; null where a kind is missing",
    )
    validity_ece: float | None = Field(
        ge=0, le=1, description="mean gap between probability and truth; null where there are no claims"
    )


class RelationDetail(RelationSummary):
    """A relation with all that is known of it."""

    domain: str = Field(description="the shop or trade it was learnt in; may be empty")
    origin: Literal["trained", "added"] = Field(
        description="whether the checkpoint was trained on it, or it was added in words at run time"
    )
    intra: bool = Field(description="whether it relates an item to itself: under it, look-alikes are found")
    pairs: int | None = Field(
        ge=0, description="pairs of items known under it when the index was made; null where intra or added"
    )
    paired_items: int | None = Field(
        ge=0, description="items that stand in one of these pairs; null where they were not counted"
    )
    quality: MeasuredQuality | None = Field(
        description="from the report that is served; null where there is none, or the relation is not in it"
    )
    state: RelationState = Field(
        description="indexed: questions may name it; waiting or embedding: they soon may, and until then may send its "
        "words; failed: they never will"
    )
    done: int = Field(ge=0, description="vectors and answers made of it so far, while it is embedding")
    total: int = Field(ge=0, description="how many there are to make; 0 where that is not known yet")
    reason: str | None = Field(description="why it failed, and what to do about it; null where it did not")


class RelationList(BaseModel):
    """All relations that questions may name, and those that they soon may."""

    in_words: bool = Field(
        description="whether POST /retrieve also takes a relation in words, one that is not listed"
    )
    report: str | None = Field(
        description="digest of the report that the figures are from, SHA-256 in hexadecimal; null without one"
    )
    relations: list[RelationDetail] = Field(
        description="the relation of an item with itself comes first, those that were added last"
    )
    pending: list[RelationDetail] = Field(
        description="those being added, the first come first, and those that failed"
    )
