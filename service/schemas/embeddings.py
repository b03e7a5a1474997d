"""Schemas of `POST /embeddings`, which returns vectors for search or training outside this service."""

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
    """Request for the vectors of items under a relation."""

    items: list[AnyItem] = Field(
        min_length=1,
        max_length=MAX_BATCH_QUESTIONS,
        description="IDs of catalogue items, and new items with `text`, `picture` or both",
        examples=[["mug-1", {"text": "Red striped mug"}]],
    )
    relation: AnyRelation = Field(
        description='ID of a relation from GET /relations, or `{"description": ...}` for a free-text relation, which '
        "requires an index built with `--token-store`",
        examples=["garden-home", {"description": "Worn together at the office."}],
    )
    views: list[View] = Field(
        [View.TEXT, View.IMAGE, View.AVERAGE],
        min_length=1,
        max_length=3,
        description="vectors to return for each item: `text`, `image`, or `average`, the renormalised mean of the two",
    )
    encoding: Coding = Field(
        "float",
        description="`float` for a list of numbers; `base64` for little-endian float32 values in base64 (RFC 4648, "
        "section 4), about a third of the size",
    )

    @property
    def cost(self) -> int:
        """Cost: 1 for each item."""
        return len(self.items)


Vector = Annotated[
    list[float] | str | None,
    Field(
        description="unit vector in the requested `encoding`; null if the item has no text or picture for this view, "
        "absent if the view was not requested"
    ),
]


class ItemEmbedding(BaseModel):
    """Vectors of one item."""

    item: ItemSummary | NewItemEcho = Field(description="item from the request")
    text: Vector = None
    image: Vector = None
    average: Vector = None


class EmbeddingsAnswer(BaseModel):
    """Vectors in one common space. Their inner products are the cosine similarities that other endpoints return."""

    version: Version
    relation: RelationSummary | RelationInWords = Field(description="relation from the request")
    dim: int = Field(ge=1, description="dimension of each vector")
    encoding: Coding = Field(description="encoding of the vectors")
    embeddings: list[ItemEmbedding] = Field(description="vectors of each item, in the order of the request")
    took_ms: Milliseconds
