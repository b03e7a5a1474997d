"""Filters on the attributes of items in `POST /retrieve`, and how the response tells that a filter was used."""

from typing import Annotated, Literal

from pydantic import BaseModel, Discriminator, Field, Tag

from model.item_limits import MAX_NAME_CHARACTERS

from .fields import Request, Value

FilterMethod = Literal["scan", "codes", "ann", "estimates", "server"]
"""The same as `FilterMethod` of `indexes/vectors/contract.py`, which clients do not have."""


class OfQueryAttribute(Request):
    """Number taken from an attribute of the query item, as in "cheaper than this item": `{"query": "price"}`."""

    query: str = Field(
        min_length=1,
        max_length=MAX_NAME_CHARACTERS,
        description="name of an attribute of the query item",
    )
    times: float = Field(1, gt=0, le=1e6, description="factor to multiply the number by")


def _way_of_limiting(limit: object) -> str:
    if isinstance(limit, dict | OfQueryAttribute):
        return "of_query"
    # A float would round a whole number of more than 15 digits. A number beyond 64 bits is larger than any attribute.
    return "whole" if isinstance(limit, int) and -(2**63) <= limit < 2**63 else "number"


Limit = Annotated[
    Annotated[int, Tag("whole")]
    | Annotated[float, Tag("number")]
    | Annotated[OfQueryAttribute, Tag("of_query")],
    Discriminator(_way_of_limiting),
]
"""Number, or an attribute of the query item."""


class Filter(Request):
    """Conditions on one attribute. All of them must hold, and an item without the attribute never matches."""

    any_of: list[Value] | None = Field(
        None, min_length=1, max_length=1000, fail_fast=True, description="accepted values of the attribute"
    )
    min: Limit | None = Field(
        None,
        description='inclusive minimum: a number, or `{"query": "price"}` for the price of the query item',
    )
    max: Limit | None = Field(None, description="inclusive maximum, in the same form as `min`")
    above: Limit | None = Field(None, description="exclusive minimum, in the same form as `min`")
    below: Limit | None = Field(None, description="exclusive maximum, in the same form as `min`")


class FilterUse(BaseModel):
    """How the searches of a request used its filter."""

    share: float = Field(
        ge=0,
        le=1,
        description="share of the catalogue that was searched: the items that pass the filter and are neither query "
        "items nor excluded",
    )
    methods: list[FilterMethod] = Field(
        description="how the searches found the nearest of these items, several if they differ. `scan`: all of them "
        "were scored, which is exact. `codes`: one-bit codes of all of them gave candidates, which were scored. `ann`: "
        "the nearest of all items came from the ANN index, and those that pass were kept. `estimates`: estimates under "
        "a free-text relation gave candidates, which were scored. `server`: the Milvus server applied the filter."
    )
