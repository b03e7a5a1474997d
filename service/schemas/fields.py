"""Fields shared by several requests and responses."""

from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import quote

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetPydanticSchema,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from model.item_limits import (
    MAX_ATTRIBUTES,
    MAX_NAME_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    VALUES,
    is_storable,
)
from model.records import Attribute, Item, Relation
from model.similarity import View

from .base64_text import decode

MAX_BATCH_QUESTIONS = 100
"""Maximum number of requests in a batch, and of items in a request for embeddings."""

ItemId = Annotated[
    str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS, description="ID of a catalogue item")
]
RelationId = Annotated[
    str,
    Field(min_length=1, max_length=MAX_NAME_CHARACTERS, description="ID of a relation from GET /relations"),
]
Score = Annotated[float, Field(ge=-1, le=1, description="cosine similarity, from -1 to 1; higher is better")]
Probability = Annotated[float, Field(ge=0, le=1, description="probability, from 0 to 1")]
Milliseconds = Annotated[float, Field(ge=0, description="processing time on the server, in milliseconds")]
Rank = Annotated[int, Field(ge=1, description="position in the ranking, starting at 1")]
Version = Annotated[
    str,
    Field(
        description="version of the index: the first 12 hexadecimal digits of its digest, a dot, and the number of the "
        "latest change that it includes"
    ),
]


class Request(BaseModel):
    """Base class of all request bodies.

    Types are strict, numbers must be finite, and unknown fields are rejected. Fields that can hold many entries are
    rejected at the first invalid entry (`fail_fast`), because half a million validation errors take seconds to build.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    part: ClassVar[str] = "question"
    """Name of the part that holds the JSON in a multipart body, if a picture is uploaded as a file."""

    @property
    def cost(self) -> int:
        """Cost of the request, as a multiple of a small one, known before any work is done."""
        return 1


class RelationInWords(Request):
    """Free-text relation, described in plain English. It does not need to be in the index."""

    description: str = Field(
        min_length=1,
        max_length=MAX_TEXT_CHARACTERS,
        description="description of the relation in plain English, best phrased like those in GET /relations",
        examples=["Worn together at the office."],
    )


def _way_of_naming(relation: object) -> str:
    return "words" if isinstance(relation, dict | RelationInWords) else "id"


AnyRelation = Annotated[
    Annotated[RelationId, Tag("id")] | Annotated[RelationInWords, Tag("words")], Discriminator(_way_of_naming)
]
"""Relation given by its ID, or as a free-text relation."""


def _decoded(text: str) -> bytes:
    try:
        return decode(text)
    except ValueError:
        raise PydanticCustomError(
            "base64",
            "The picture is not valid base64.",
            {"remedy": "Encode the bytes of the file as in RFC 4648, section 4, without a data: prefix."},
        ) from None


Base64 = Annotated[
    bytes,
    GetPydanticSchema(
        lambda _, handler: core_schema.no_info_after_validator_function(
            _decoded, handler(Annotated[str, Field(min_length=1)])
        )
    ),
]
"""Bytes that are sent as Base64, and decoded once."""


class Picture(Request):
    """Picture given as base64-encoded bytes or as a URL."""

    base64: Base64 | None = Field(
        None,
        description="bytes of a JPEG, PNG or WebP file, encoded in base64 (RFC 4648, section 4)",
    )
    url: str | None = Field(
        None,
        min_length=1,
        max_length=2_000,
        description="HTTP or HTTPS URL of a JPEG, PNG or WebP file on a public host",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.base64 is None) == (self.url is None):
            raise PydanticCustomError(
                "one_source",
                "A picture needs exactly one of base64 and url; {number} sent.",
                {
                    "number": "neither was" if self.url is None else "both were",
                    "remedy": "Send either the bytes of the file in base64, or its url.",
                },
            )
        return self


Value = str | bool | Annotated[int, Field(ge=-(2**63), lt=2**63)] | float
"""Value to compare an attribute with. An integer that does not fit in 64 bits is parsed as a float."""


def _exact(value: Attribute) -> Attribute:
    """Return `value`, or raise if it is too long or cannot be stored exactly."""
    if not is_storable(value):
        raise PydanticCustomError(
            "attribute", "An attribute cannot have this value.", {"remedy": f"Send {VALUES}."}
        )
    return value


Attributes = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS)],
        Annotated[Attribute, AfterValidator(_exact)],
    ],
    Field(
        max_length=MAX_ATTRIBUTES,
        fail_fast=True,
        description="attributes of the item by name, such as its price",
    ),
]


class NewItem(Request):
    """New item, given by text, a picture or both. It does not need to be in the catalogue."""

    text: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_TEXT_CHARACTERS,
        description="text of the item, such as its title and categories",
    )
    picture: Picture | None = Field(None, description="picture of the item")

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
        """Return what the item needs for `view` but does not have, or None if it has everything."""
        if self.text is None and view is not View.IMAGE:
            return "text"
        return "picture" if self.picture is None and view is not View.TEXT else None


def _way_of_knowing(item: object) -> str:
    return "new" if isinstance(item, dict | NewItem) else "item_id"


AnyItem = Annotated[
    Annotated[ItemId, Tag("item_id")] | Annotated[NewItem, Tag("new")], Discriminator(_way_of_knowing)
]
"""Catalogue item given by its ID, or a new item."""


def image_url(item: Item, root_path: str = "") -> str | None:
    """Return the URL path of the item's picture below `root_path`, or None if it has no picture."""
    return f"{root_path}/items/{quote(item.item_id, safe='')}/image" if item.picture else None


class ItemSummary(BaseModel):
    """Summary of an item."""

    item_id: ItemId
    title: str = Field(description="title of the item")
    categories: list[str] = Field(description="categories of the item, broadest first")
    image_url: str | None = Field(
        description="path of the picture on this server; null for an item without a picture"
    )

    @classmethod
    def of(cls, item: Item, root_path: str = "") -> Self:
        """Return the summary of `item`; the server is published below `root_path`."""
        return cls(
            item_id=item.item_id,
            title=item.title,
            categories=list(item.categories),
            image_url=image_url(item, root_path),
        )


class ItemDetail(ItemSummary):
    """Item with all its stored fields."""

    description: str = Field(description="description of the item; may be empty")
    attributes: dict[str, Attribute] = Field(description="attributes of the item by name, such as its price")

    @classmethod
    def of(cls, item: Item, root_path: str = "") -> Self:
        """Return the details of `item`; the server is published below `root_path`."""
        return cls(
            **ItemSummary.of(item, root_path).model_dump(),
            description=item.description,
            attributes=dict(item.attributes),
        )


class NewItemEcho(BaseModel):
    """Echo of a new item from the request."""

    text: str | None = Field(None, description="text that was sent")
    picture: bool = Field(False, description="whether a picture was sent")


class RelationSummary(BaseModel):
    """Summary of a relation."""

    relation_id: RelationId
    name: str = Field(description="short name of the relation for people")
    description: str = Field(
        description="description of the relation in plain English, as the network reads it"
    )

    @classmethod
    def of(cls, relation: Relation) -> Self:
        """Return the summary of `relation`."""
        return cls(
            relation_id=relation.relation_id, name=relation.display_name, description=relation.description
        )
