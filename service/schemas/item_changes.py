"""Schemas of `PUT /items/{item_id}` and `POST /items/bulk`, which change the catalogue."""

from functools import partial
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from model.item_limits import (
    MAX_CATEGORIES,
    MAX_DESCRIPTION_CHARACTERS,
    MAX_NAME_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    RESERVED_NAMES,
    is_attribute_name,
    is_one_line,
    unreadable_character,
)

from .fields import (
    Attributes,
    ItemDetail,
    ItemId,
    Picture,
    Request,
    Version,
)
from .problem import Problem


def one_line(item_id: str) -> str:
    """Return the ID of an item to create, or raise if it is not valid.

    Raises:
        PydanticCustomError: the ID has control characters or lone surrogates, which logs and databases cannot store.
    """
    if not is_one_line(item_id):
        raise PydanticCustomError(
            "one_line",
            "An ID cannot contain control characters or lone surrogates.",
            {"remedy": "Send one line of text without these characters."},
        )
    return item_id


def _readable(text: str, lines: bool = False) -> str:
    if character := unreadable_character(text, lines):
        raise PydanticCustomError(
            "unreadable",
            "The text contains the control or invisible character {character}.",
            {"character": character, "remedy": "Remove this character."},
        )
    return text


def _stored(attributes: Attributes) -> Attributes:
    for name in attributes:
        if not is_attribute_name(name):
            raise PydanticCustomError(
                "attribute_name",
                "An attribute cannot have the name {name}.",
                {
                    "name": repr(name[:MAX_NAME_CHARACTERS]),
                    "remedy": f"Choose a single-line name that is not one of {', '.join(sorted(RESERVED_NAMES))}.",
                },
            )
    return attributes


class ItemUpsert(Request):
    """Complete content of an item. It replaces the previous content; omitted fields are reset to their defaults."""

    part: ClassVar[str] = "item"

    title: Annotated[str, AfterValidator(_readable)] = Field(
        max_length=MAX_TEXT_CHARACTERS,
        description="title of the item; may be empty if the model reads other texts of the item",
    )
    description: Annotated[str, AfterValidator(partial(_readable, lines=True))] = Field(
        "", max_length=MAX_DESCRIPTION_CHARACTERS, description="description of the item; may be empty"
    )
    categories: list[
        Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS), AfterValidator(_readable)]
    ] = Field([], max_length=MAX_CATEGORIES, description="categories of the item, broadest first")
    attributes: Annotated[Attributes, AfterValidator(_stored)] = Field(
        {},
        description="attributes of the item by name, such as its price; filters can refer to them",
    )
    picture: Picture | None = Field(
        None,
        description="picture of the item; omit it for a text-only item, or upload it as a file in a multipart body",
    )


class ItemStored(BaseModel):
    """Item as it was stored. The change is durable and visible to the next request."""

    version: Version
    created: bool = Field(description="whether the item is new; false if an existing item was replaced")
    item: ItemDetail


class BulkUpsert(ItemUpsert):
    """Complete content of an item, with its ID."""

    item_id: Annotated[ItemId, AfterValidator(one_line)] = Field(
        description="ID of the item to create or replace"
    )


class BulkLine(Request):
    """One line of a bulk upload: `{"upsert": {"item_id": ..., "title": ...}}` or `{"delete": "mug-1"}`."""

    upsert: BulkUpsert | None = Field(None, description="item to create or replace, with its `item_id`")
    delete: ItemId | None = Field(None, description="ID of the item to delete")

    @model_validator(mode="after")
    def _one_change(self) -> Self:
        if (self.upsert is None) == (self.delete is None):
            raise PydanticCustomError(
                "one_change",
                "A line needs exactly one of upsert and delete; {number} sent.",
                {
                    "number": "neither was" if self.upsert is None else "both were",
                    "remedy": "Send one line for each change.",
                },
            )
        return self


class BulkReply(BaseModel):
    """Reply to one line of a bulk upload."""

    line: int = Field(
        ge=1, description="number of the line in the body, from 1; empty lines are counted but get no reply"
    )
    item_id: str | None = Field(
        None,
        description="ID of the item; absent if the line is invalid or too long, or if the server was not ready",
    )
    status: int = Field(
        ge=200,
        le=599,
        description="201: created, 200: replaced, 204: deleted or did not exist, 400 and above: rejected",
    )
    problem: Problem | None = Field(
        None, description="reason for the rejection; absent if the line was accepted"
    )
