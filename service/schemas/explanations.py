"""Schemas of `POST /explain` and `POST /explain/heat-map`: a relation's attention over items."""

from pydantic import BaseModel, Field

from model.similarity import Similarity

from .fields import (
    AnyItem,
    AnyRelation,
    ItemSummary,
    Milliseconds,
    NewItemEcho,
    RelationInWords,
    RelationSummary,
    Request,
    Score,
    Version,
)
from .pairs import PairRequest

_RELATION = (
    'ID of a relation from GET /relations, or `{"description": ...}` for a free-text relation, which requires an index '
    "built with `--token-store`"
)
_EXAMPLES = ["garden-home", {"description": "Worn together at the office."}]
_WEIGHT = "share of the attention, from 0 to 1"
_SUMMARY = (
    "share of the attention, from 0 to 1, on tokens that stand for the whole text or picture rather than a part of it, "
    "such as the end-of-text token or the class token of CLIP; often the largest share"
)


class ExplainRequest(PairRequest):
    """Request for a relation's attention over two items."""

    relation: AnyRelation = Field(description=_RELATION, examples=_EXAMPLES)


class HeatMapRequest(Request):
    """Request for a relation's attention over the picture of an item."""

    item: AnyItem = Field(
        description="ID of a catalogue item, or a new item with a `picture`", examples=["mug-1"]
    )
    relation: AnyRelation = Field(description=_RELATION, examples=_EXAMPLES)


class WordWeight(BaseModel):
    """Attention weight of one word of a text."""

    text: str = Field(description="word as it appears in the text")
    start: int = Field(
        ge=0, description="position of the first character, counted in Unicode code points from 0"
    )
    end: int = Field(ge=1, description="position after the last character")
    weight: float = Field(ge=0, description=_WEIGHT)


class TextAttention(BaseModel):
    """Attention over a text. The weights of the words and `summary` add up to 1."""

    text: str = Field(description="text as the network reads it")
    words: list[WordWeight] = Field(
        description="words in order; words beyond the network's maximum text length are missing"
    )
    summary: float = Field(ge=0, description=_SUMMARY)


class ImageAttention(BaseModel):
    """Attention over a picture. The values of the patches and `summary` add up to 1."""

    grid: list[list[float]] = Field(
        description="rows of patches from top to bottom, each from left to right; a value is a share of the attention, "
        "from 0 to 1"
    )
    summary: float = Field(ge=0, description=_SUMMARY)
    left: float = Field(
        description="left edge of the grid, as a fraction of the picture's width; above 0 if the image processor crops "
        "the picture, below 0 if it pads the picture"
    )
    top: float = Field(description="top edge of the grid, as a fraction of the picture's height")
    right: float = Field(description="right edge of the grid, as a fraction of the picture's width")
    bottom: float = Field(description="bottom edge of the grid, as a fraction of the picture's height")


class ItemAttention(BaseModel):
    """Attention over one item."""

    item: ItemSummary | NewItemEcho = Field(description="item from the request")
    text: TextAttention | None = Field(description="attention over the text; null if the item has no text")
    image: ImageAttention | None = Field(
        description="attention over the picture; null if the item has no picture"
    )


class Cosines(BaseModel):
    """Cosine similarities of the two items, one for each pair of views; null if one of the two views is missing."""

    TT: Score | None = Field(description="text of item_a and text of item_b")
    II: Score | None = Field(description="image of item_a and image of item_b")
    TI: Score | None = Field(description="text of item_a and image of item_b")
    IT: Score | None = Field(description="image of item_a and text of item_b")
    AVG: Score | None = Field(description="mean of text and image, for both items")


class ExplainAnswer(BaseModel):
    """A relation's attention over two items, and their similarity under the relation."""

    version: Version
    relation: RelationSummary | RelationInWords = Field(description="relation from the request")
    item_a: ItemAttention
    item_b: ItemAttention
    similarity: Similarity = Field(
        description="views of item_a and item_b that `score` compares; AVG unless a new item has only text or only a "
        "picture"
    )
    score: Score
    cosines: Cosines
    took_ms: Milliseconds
