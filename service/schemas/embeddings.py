"""`POST /embeddings`: the vectors themselves, for whoever searches or learns elsewhere."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from model.similarity import View

from .fields import (
    MAX_BATCH_QUESTIONS,
    AnyItem,
    AnyRelation,
    ItemSummary,
    Milliseconds,
    NewItemEcho,
    RelationInWords,
    RelationSummary,
    Request,
    Version,
)

Coding = Literal["float", "base64"]


class EmbeddingsRequest(Request):
    """Ask for the vectors of some items under a relation."""

    items: list[AnyItem] = Field(
        min_length=1,
        max_length=MAX_BATCH_QUESTIONS,
        description="each the id of an item of the catalogue, or a new one: `text`, `picture` or both",
        examples=[["mug-1", {"text": "Red striped mug"}]],
    )
    relation: AnyRelation = Field(
        description='id of a relation, one of GET /relations; or `{"description": ...}`, any relation in words, where '
        "the index was built with --token-store",
        examples=["garden-home", {"description": "Worn together at the office."}],
    )
    views: list[View] = Field(
        [View.TEXT, View.IMAGE, View.AVERAGE],
        min_length=1,
        max_length=3,
        description="which vectors of an item: of its text, of its picture, or the renormalised mean of the two",
    )
    encoding: Coding = Field(
        "float",
        description="float: a list of numbers; base64: the same as little-endian float32 (RFC 4648, section 4), a "
        "third as long",
    )


Vector = Annotated[
    list[float] | str | None,
    Field(
        description="unit vector, as `encoding` says; null where the item has nothing to show in this view, left out "
        "where the view was not asked for"
    ),
]


class ItemEmbedding(BaseModel):
    """The vectors of one item."""

    item: ItemSummary | NewItemEcho = Field(description="the item asked about")
    text: Vector = None
    image: Vector = None
    average: Vector = None


class EmbeddingsAnswer(BaseModel):
    """Vectors of one space: their inner products are the cosines that all other questions go by."""

    version: Version
    relation: RelationSummary | RelationInWords = Field(description="the relation asked about")
    dim: int = Field(ge=1, description="length of every vector")
    encoding: Coding = Field(description="how vectors are written")
    embeddings: list[ItemEmbedding] = Field(description="in the order of the items asked about")
    took_ms: Milliseconds
