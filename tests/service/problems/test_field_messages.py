"""Tests of the messages about invalid values: accepted values, path of the field, and quotation of the value."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from model.similarity import Similarity
from service.problems.field_messages import place, quoted, wish
from service.schemas.attribute_filter import Filter, Limit
from service.schemas.fields import AnyRelation, Picture


@pytest.mark.parametrize(
    ("annotation", "wished"),
    [
        (Annotated[int, Field(ge=1, le=100)], "a whole number from 1 to 100"),
        (Annotated[int, Field(ge=1)], "a whole number of at least 1"),
        (int, "a whole number"),
        (
            Annotated[int, Field(ge=16, le=64, multiple_of=16)],
            "a whole number from 16 to 64 that is a multiple of 16",
        ),
        (Annotated[float, Field(gt=0, le=1)], "a number above 0 and at most 1"),
        (Annotated[float | None, Field(lt=2)], "a number below 2"),
        (bool, "true or false"),
        (Path, "a path"),
        (str, "text"),
        (Annotated[str, Field(min_length=1)], "text of 1 or more characters"),
        (Annotated[str, Field(max_length=9)], "text of at most 9 characters"),
        (Literal["a", "b"], "one of a, b"),
        (Similarity, "one of TT, II, TI, IT, AVG"),
        (Similarity | None, "one of TT, II, TI, IT, AVG"),
        (tuple[Literal["a", "b"], ...], "a list of values (a, b)"),
        (dict[str, int], "a JSON object"),
        (Filter, "a JSON object (fields: any_of, min, max, above, below)"),
        (str | bool | int | float, "text or true or false or a number"),
        (str | Picture | None, "text"),
    ],
)
def test_describes_the_accepted_values_of_a_field(annotation: Any, wished: str) -> None:
    assert wish(FieldInfo.from_annotation(annotation)) == wished


class Shelf(BaseModel):
    """A model whose fields produce pydantic locations with union labels and dict keys."""

    items: list[str | int] = Field([], description="a list whose elements have one of two types")
    prices: dict[Annotated[str, Field(min_length=2)], float] | None = None
    relation: AnyRelation | None = None
    limit: Limit | None = None
    shelves: dict[str, "Shelf"] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("sent", "path", "wished"),
    [
        ({"items": [[]]}, ("items", 0), "text or a whole number"),
        ({"items": 5}, ("items",), "a list of values (text or a whole number)"),
        ({"prices": {"ab": "5"}}, ("prices", "ab"), "a number"),
        ({"prices": {"": 5}}, ("prices", ""), "text of 2 or more characters"),
        ({"relation": ""}, ("relation",), "text of 1 to 512 characters"),
        ({"relation": {"description": 5}}, ("relation", "description"), "text of 1 to 2000 characters"),
        ({"limit": {"query": 5}}, ("limit", "query"), "text of 1 to 512 characters"),
        (
            {"shelves": {"items": {"prices": {"items": []}}}},
            ("shelves", "items", "prices", "items"),
            "a number",
        ),
        (
            {"shelves": {"str": []}},
            ("shelves", "str"),
            "a JSON object (fields: items, prices, relation, limit, shelves)",
        ),
    ],
)
def test_path_of_an_error_matches_the_users_input(
    sent: dict[str, Any], path: tuple[str | int, ...], wished: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        Shelf.model_validate(sent, strict=True)
    places = {found.path: found for found in (place(Shelf, one["loc"]) for one in refused.value.errors())}
    assert path in places
    assert wish(places[path].field) == wished


@pytest.mark.parametrize(
    ("value", "echoed"),
    [
        (5, "5"),
        ("5", '"5"'),
        (None, "null"),
        (float("nan"), "NaN"),
        ("x" * 81, f'"{"x" * 80}…"'),
        ([1, 2], "a list of length 2"),
        ({}, "{}"),
        (-(10**4000), "a number with more than 80 digits"),
        ("\ud800", '"\\ud800"'),
        (b"\xff{", '"\ufffd{"'),
        (Path("a"), '"a"'),
    ],
)
def test_quotes_a_value_as_shortened_json(value: object, echoed: str) -> None:
    assert quoted(value) == echoed
