"""The fields that several requests or answers share."""

from base64 import b64decode
from binascii import Error
from math import isfinite
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import quote

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from model.records import Attribute, Item, Relation
from model.similarity import View

MAX_NAME_CHARACTERS = 512
"""Of ids, and of the names of attributes and categories."""
MAX_TEXT_CHARACTERS = 2_000
MAX_BATCH_QUESTIONS = 100
"""Questions of one batch, or items whose vectors are asked for together."""

ItemId = Annotated[
    str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS, description="id of an item of the catalogue")
]
RelationId = Annotated[
    str,
    Field(
        min_length=1, max_length=MAX_NAME_CHARACTERS, description="id of a relation, one of GET /relations"
    ),
]
Score = Annotated[float, Field(ge=-1, le=1, description="cosine similarity, from -1 to 1; larger is better")]
Probability = Annotated[float, Field(ge=0, le=1, description="probability, from 0 to 1")]
Milliseconds = Annotated[float, Field(ge=0, description="time the engine took, in milliseconds")]
Rank = Annotated[int, Field(ge=1, description="place in the ranking, from 1")]
Version = Annotated[
    str,
    Field(
        description="the index that answered: the first 12 hexadecimal digits of its digest, and after a dot the "
        "number of the last change it shows"
    ),
]


class Request(BaseModel):
    """What all request bodies have in common.

    Types are strict, numbers finite, and unknown fields are refused, not ignored. What may hold many entries is refused
    at the first wrong one (`fail_fast`): to make an error of each of half a million takes seconds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    part: ClassVar[str] = "question"
    """Name of the part of a multipart body that it is, where a picture is uploaded beside it."""


class RelationInWords(Request):
    """A relation that need not be known: any in plain English."""

    description: str = Field(
        min_length=1,
        max_length=MAX_TEXT_CHARACTERS,
        description="the relation in words, best worded like those of GET /relations",
        examples=["Worn together at the office."],
    )


def _way_of_naming(relation: object) -> str:
    return "words" if isinstance(relation, dict | RelationInWords) else "id"


AnyRelation = Annotated[
    Annotated[RelationId, Tag("id")] | Annotated[RelationInWords, Tag("words")], Discriminator(_way_of_naming)
]
"""A relation by its id, or in words."""


class Picture(Request):
    """A picture: its bytes, or where it can be fetched."""

    base64: str | None = Field(
        None,
        min_length=1,
        description="the bytes of a JPEG, PNG or WebP file, in base64 (RFC 4648, section 4)",
    )
    url: str | None = Field(
        None,
        min_length=1,
        max_length=2_000,
        description="http or https address of a JPEG, PNG or WebP file on a public host",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.base64 is None) == (self.url is None):
            raise PydanticCustomError(
                "one_source",
                "A picture needs exactly one of base64 and url; {number} sent.",
                {
                    "number": "neither was" if self.url is None else "both were",
                    "remedy": "Send the bytes of the file in base64, or its url.",
                },
            )
        return self

    @field_validator("base64")
    @classmethod
    def _decodable(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                b64decode(value, validate=True)
            except (Error, ValueError):
                raise PydanticCustomError(
                    "base64",
                    "The picture is not base64.",
                    {
                        "remedy": "Encode the bytes of the file by RFC 4648, section 4, without a data: prefix."
                    },
                ) from None
        return value

    @property
    def content(self) -> bytes | None:
        """The bytes that were sent; None where an address was."""
        return None if self.base64 is None else b64decode(self.base64)


Value = str | bool | Annotated[int, Field(ge=-(2**63), lt=2**63)] | float
"""To compare an attribute with. A longer whole number is taken as a float, as most JSON parsers take all numbers."""


def _exact(value: Attribute) -> Attribute:
    """Refuse a value that could not be returned exactly as it came."""
    if isinstance(value, str):
        fits = len(value) <= MAX_TEXT_CHARACTERS
    else:
        fits = isfinite(value) if isinstance(value, float) else abs(value) <= 2**53
    if not fits:
        raise PydanticCustomError(
            "attribute",
            "An attribute cannot have this value.",
            {
                "remedy": f"Send text of at most {MAX_TEXT_CHARACTERS} characters, a finite number, a whole one up to "
                "2^53, true or false."
            },
        )
    return value


Attributes = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS)],
        Annotated[Attribute, AfterValidator(_exact)],
    ],
    Field(
        max_length=100,
        fail_fast=True,
        description="what is stored of an item beside its words, such as its price, by name",
    ),
]


class NewItem(Request):
    """An item that need not be in the catalogue: in words, by a picture, or both."""

    text: str | None = Field(
        None, min_length=1, max_length=MAX_TEXT_CHARACTERS, description="its title and categories, in words"
    )
    picture: Picture | None = Field(None, description="its picture")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.text is None and self.picture is None:
            raise PydanticCustomError(
                "nothing_known",
                "A new item needs text, a picture, or both; neither was sent.",
                {"remedy": "Send text, such as its title and categories, or a picture."},
            )
        return self

    def lacks(self, view: View) -> Literal["text", "picture"] | None:
        """Return what it lacks to be seen in a view, if anything."""
        if self.text is None and view is not View.IMAGE:
            return "text"
        return "picture" if self.picture is None and view is not View.TEXT else None


def _way_of_knowing(item: object) -> str:
    return "new" if isinstance(item, dict | NewItem) else "item_id"


AnyItem = Annotated[
    Annotated[ItemId, Tag("item_id")] | Annotated[NewItem, Tag("new")], Discriminator(_way_of_knowing)
]
"""An item of the catalogue by its id, or a new one."""


def image_url(item: Item) -> str | None:
    """Return the path of the picture of an item, if it has one."""
    return f"/items/{quote(item.item_id, safe='')}/image" if item.picture else None


class ItemSummary(BaseModel):
    """An item as it stands in an answer."""

    item_id: ItemId
    title: str = Field(description="what the item is called")
    categories: list[str] = Field(description="its categories, the broadest first")
    image_url: str | None = Field(
        description="path of its picture on this server; null for an item of words alone"
    )

    @classmethod
    def of(cls, item: Item) -> Self:
        """Summarise an item."""
        return cls(
            item_id=item.item_id,
            title=item.title,
            categories=list(item.categories),
            image_url=image_url(item),
        )


class ItemDetail(ItemSummary):
    """An item with all that the catalogue knows of it."""

    description: str = Field(description="what the shop says about it; may be empty")
    attributes: dict[str, Attribute] = Field(description="what else is stored of it, such as its price")

    @classmethod
    def of(cls, item: Item) -> Self:
        """Take all that is known of an item."""
        return cls(
            **ItemSummary.of(item).model_dump(),
            description=item.description,
            attributes=dict(item.attributes),
        )


class NewItemEcho(BaseModel):
    """A new item, as it was asked about."""

    text: str | None = Field(None, description="the words that were sent")
    picture: bool = Field(False, description="whether a picture was sent")


class RelationSummary(BaseModel):
    """A relation as it stands in an answer."""

    relation_id: RelationId
    description: str = Field(description="the relation in plain English, as the network reads it")

    @classmethod
    def of(cls, relation: Relation) -> Self:
        """Summarise a relation."""
        return cls(relation_id=relation.relation_id, description=relation.description)
