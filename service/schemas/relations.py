"""Schemas for listing relations and adding new ones."""

from typing import Literal

from pydantic import BaseModel, Field

from model.item_limits import MAX_NAME_CHARACTERS, MAX_TEXT_CHARACTERS

from .fields import ItemSummary, RelationId, RelationSummary, Request

RelationState = Literal["waiting", "embedding", "indexed", "failed"]


class NewRelation(Request):
    """Free-text relation to add to the index."""

    relation_id: RelationId = Field(description="ID of the new relation, not used by any other relation")
    description: str = Field(
        min_length=1,
        max_length=MAX_TEXT_CHARACTERS,
        description="description of the relation in plain English, best phrased like those in GET /relations",
        examples=["Worn together at the office."],
    )
    name: str = Field(
        "",
        max_length=MAX_NAME_CHARACTERS,
        description="short name for people; made from the ID if it is empty",
        examples=["Office wear"],
    )


class SamplePair(BaseModel):
    """Example of a pair of items that the relation links."""

    item_a: ItemSummary
    item_b: ItemSummary
    support: int = Field(
        ge=1, description="number of users of the relation who have both items; 1 for ready-made pairs"
    )


class MeasuredQuality(BaseModel):
    """Quality of a relation, as measured by `rcml evaluate` on test items that were not used in training."""

    queries: int = Field(
        ge=0,
        description="number of evaluation queries behind `hit_at_5`; with few queries the estimate is rough",
    )
    hit_at_5: float | None = Field(
        ge=0,
        le=1,
        description="share of evaluation queries with a correct item among the top 5; null without queries",
    )
    claims: int = Field(
        ge=0,
        description="number of item pairs for which the evaluation tested the claim that the relation holds; about "
        "half of the claims are true",
    )
    validity_auc: float | None = Field(
        ge=0,
        le=1,
        description="area under the ROC curve (AUC) of the validity probabilities; null unless there are true and "
        "false claims",
    )
    validity_ece: float | None = Field(
        ge=0,
        le=1,
        description="expected calibration error (ECE) of the validity probabilities; null without claims",
    )


class RelationDetail(RelationSummary):
    """Relation with its statistics, its measured quality and its state in the index."""

    domain: str = Field(description="shop or industry whose data the relation was learned from; may be empty")
    origin: Literal["trained", "added"] = Field(
        description="`trained` if the checkpoint was trained on the relation, `added` if it was added at run time"
    )
    intra: bool = Field(
        description="whether this is the intra-sample relation, which relates an item to itself and finds look-alikes"
    )
    pairs: int | None = Field(
        ge=0,
        description="number of item pairs with this relation when the index was built; null for the intra-sample "
        "relation and for added relations",
    )
    paired_items: int | None = Field(
        ge=0, description="number of different items in the pairs that `pairs` counts; null if unknown"
    )
    users: int | None = Field(
        ge=0,
        description="number of users whose log the relation was learned from; null for the intra-sample relation, for "
        "added relations, and for relations that were not learned from a log",
    )
    sample_pairs: list[SamplePair] = Field(
        description="examples of the pairs that `pairs` counts, from strong to weak ones; without pairs of which an "
        "item was deleted since"
    )
    quality: MeasuredQuality | None = Field(
        description="figures from the evaluation report; null if no report is served or the report omits the relation"
    )
    state: RelationState = Field(
        description="`indexed`: requests can name the relation by its ID. `waiting` or `embedding`: the relation is "
        "being added, and requests must still send its description. `failed`: see `reason`."
    )
    done: int = Field(
        ge=0,
        description="number of vectors and precomputed answers computed so far, while `state` is `embedding`",
    )
    total: int = Field(
        ge=0, description="number of vectors and precomputed answers to compute; 0 if not known yet"
    )
    reason: str | None = Field(
        description="why the relation could not be added, and what to do about it; null unless it failed"
    )


class RelationList(BaseModel):
    """All relations of the index, and the relations that are being added."""

    in_words: bool = Field(
        description="whether requests may also describe a free-text relation that is not listed here"
    )
    report: str | None = Field(
        description="SHA-256 digest, in hexadecimal, of the evaluation report that `quality` is taken from; null "
        "without a report"
    )
    relations: list[RelationDetail] = Field(
        description="indexed relations: the intra-sample relation first, added relations last"
    )
    pending: list[RelationDetail] = Field(
        description="relations that are being added and relations that failed, in the order of their requests"
    )
