"""`PUT /items/{item_id}` and `POST /items/bulk`: items put into the catalogue and taken out of it."""

from typing import Annotated, ClassVar, Self
from unicodedata import category

from pydantic import AfterValidator, BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from .fields import (
    MAX_NAME_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    Attributes,
    ItemDetail,
    ItemId,
    Picture,
    Request,
    Version,
)
from .problem import Problem

MAX_DESCRIPTION_CHARACTERS = 20_000
MAX_CATEGORIES = 100


def one_line(item_id: str) -> str:
    """Check an id that is to be given to an item.

    Raises:
        PydanticCustomError: it has control characters, which logs and databases cannot hold.
    """
    if any(category(one) in ("Cc", "Cs") for one in item_id):
        raise PydanticCustomError(
            "one_line",
            "An id cannot hold control characters.",
            {"remedy": "Send one line of text, whatever other characters it holds."},
        )
    return item_id


def _stored(attributes: Attributes) -> Attributes:
    for name in attributes:
        if name in _TAKEN or any(category(one) in ("Cc", "Cs") for one in name):
            raise PydanticCustomError(
                "attribute_name",
                "No attribute can have the name {name}.",
                {
                    "name": repr(name[:MAX_NAME_CHARACTERS]),
                    "remedy": f"Choose one line of text other than {', '.join(sorted(_TAKEN))}.",
                },
            )
    return attributes


_TAKEN = frozenset({"item_id", "title", "description", "categories", "image"})
"""What `rcml prepare` reads of an item beside its attributes, and so no name for one."""


class ItemUpsert(Request):
    """An item, whole: what it was before is replaced, and what is left out here is gone."""

    part: ClassVar[str] = "item"

    title: str = Field(min_length=1, max_length=MAX_TEXT_CHARACTERS, description="what the item is called")
    description: str = Field(
        "", max_length=MAX_DESCRIPTION_CHARACTERS, description="what the shop says about it; may be empty"
    )
    categories: list[Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS)]] = Field(
        [], max_length=MAX_CATEGORIES, description="its categories, the broadest first"
    )
    attributes: Annotated[Attributes, AfterValidator(_stored)] = Field(
        {},
        description="what is stored of it beside its words, such as its price, by name; filters refer to it",
    )
    picture: Picture | None = Field(
        None,
        description="its picture; without one it is an item of words alone. Or upload it: see the multipart body",
    )


class ItemStored(BaseModel):
    """An item that is in the catalogue now, durably: the next question finds it."""

    version: Version
    created: bool = Field(description="whether there was none of this id before")
    item: ItemDetail


class BulkUpsert(ItemUpsert):
    """An item, whole, and its id."""

    item_id: Annotated[ItemId, AfterValidator(one_line)] = Field(
        description="id of the item, new or instead of the one that has it"
    )


class BulkLine(Request):
    """One line of a bulk upload: `{"upsert": {"item_id": ..., "title": ...}}` or `{"delete": "mug-1"}`."""

    upsert: BulkUpsert | None = Field(None, description="an item to be put in, with its `item_id`")
    delete: ItemId | None = Field(None, description="id of an item to be taken out")

    @model_validator(mode="after")
    def _one_change(self) -> Self:
        if (self.upsert is None) == (self.delete is None):
            raise PydanticCustomError(
                "one_change",
                "A line needs exactly one of upsert and delete; {number} sent.",
                {
                    "number": "neither was" if self.upsert is None else "both were",
                    "remedy": "Send a line for each change.",
                },
            )
        return self


class BulkReply(BaseModel):
    """What became of one line."""

    line: int = Field(
        ge=1, description="its number in the body, from 1; empty lines count, and have no reply"
    )
    item_id: str | None = Field(
        None, description="id of the item; left out where the line could not be read so far"
    )
    status: int = Field(
        ge=200,
        le=599,
        description="201: put in, 200: put in instead of another, 204: taken out or never there; from 400: refused",
    )
    problem: Problem | None = Field(None, description="why it was refused; left out where it was not")
