"""`POST /explain` and `POST /explain/heat-map`: what a relation looks at in items."""

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
    'id of a relation, one of GET /relations; or `{"description": ...}`, any relation in words, where the index was '
    "built with --token-store"
)
_EXAMPLES = ["garden-home", {"description": "Worn together at the office."}]
_WEIGHT = "share of the attention, from 0 to 1"
_SUMMARY = (
    "share of the attention, from 0 to 1, of what stands for the whole and for no part of it (such as CLIP's end of a "
    "text, or the class token of a picture); often the most"
)


class ExplainRequest(PairRequest):
    """Ask what a relation looks at in two items."""

    relation: AnyRelation = Field(description=_RELATION, examples=_EXAMPLES)


class HeatMapRequest(Request):
    """Ask what a relation looks at in the picture of an item."""

    item: AnyItem = Field(
        description="id of an item of the catalogue, or a new one with `picture`", examples=["mug-1"]
    )
    relation: AnyRelation = Field(description=_RELATION, examples=_EXAMPLES)


class WordWeight(BaseModel):
    """A word of a text."""

    text: str = Field(description="the word, as it stands in the text")
    start: int = Field(ge=0, description="its first character, from 0, in code points")
    end: int = Field(ge=1, description="the character after its last")
    weight: float = Field(ge=0, description=_WEIGHT)


class TextAttention(BaseModel):
    """What was looked at in a text; words and summary add up to 1."""

    text: str = Field(description="the text as the network reads it")
    words: list[WordWeight] = Field(
        description="in their order; what is beyond the network's longest text is missing"
    )
    summary: float = Field(ge=0, description=_SUMMARY)


class ImageAttention(BaseModel):
    """What was looked at in a picture; patches and summary add up to 1."""

    grid: list[list[float]] = Field(
        description="patches row by row from the top, each from left to right: share of the attention, from 0 to 1"
    )
    summary: float = Field(ge=0, description=_SUMMARY)
    left: float = Field(
        description="left edge of the grid, in shares of the picture's width: an image processor may crop the picture, "
        "or, below 0, pad it"
    )
    top: float = Field(description="upper edge of the grid, in shares of the picture's height")
    right: float = Field(description="right edge of the grid, in shares of the picture's width")
    bottom: float = Field(description="lower edge of the grid, in shares of the picture's height")


class ItemAttention(BaseModel):
    """What was looked at in an item."""

    item: ItemSummary | NewItemEcho = Field(description="the item asked about")
    text: TextAttention | None = Field(description="null where the item has no words")
    image: ImageAttention | None = Field(description="null where the item has no picture")


class Cosines(BaseModel):
    """The two items compared in every way: (item_a, item_b) views; null where one of them lacks its view."""

    TT: Score | None = Field(description="the text of item_a with the text of item_b")
    II: Score | None = Field(description="the picture of item_a with the picture of item_b")
    TI: Score | None = Field(description="the text of item_a with the picture of item_b")
    IT: Score | None = Field(description="the picture of item_a with the text of item_b")
    AVG: Score | None = Field(description="the mean of text and picture of item_a with that of item_b")


class ExplainAnswer(BaseModel):
    """What a relation looks at in two items, and how near they are by that."""

    version: Version
    relation: RelationSummary | RelationInWords = Field(description="the relation asked about")
    item_a: ItemAttention
    item_b: ItemAttention
    similarity: Similarity = Field(
        description="the (item_a, item_b) views that `score` compares: AVG, or what both items have"
    )
    score: Score
    cosines: Cosines
    took_ms: Milliseconds
