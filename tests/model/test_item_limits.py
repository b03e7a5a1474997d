"""The limits of an item are the same for files and for requests, and a refusal names the value and the remedy."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model.item_limits import refusal
from model.records import Attribute
from service.schemas.item_changes import BulkUpsert

VALID: Mapping[str, Any] = {"item_id": "mug-1", "title": "Mug"}


def fields(**changed: Any) -> dict[str, Any]:
    return {**VALID, **changed}


def accepted_by_the_api(item: Mapping[str, Any]) -> bool:
    try:
        BulkUpsert.model_validate(item)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (fields(item_id=""), "the ID is empty; give each item an ID"),
        (fields(item_id="x" * 513), "the ID has 513 characters; at most 512 are possible, so shorten it"),
        (fields(item_id="a\nb"), r"the ID 'a\nb' has control characters or lone surrogates; remove them"),
        (fields(item_id="a\x85b"), r"the ID 'a\x85b' has control characters or lone surrogates; remove them"),
        (
            fields(title="t" * 2_001),
            "the title has 2,001 characters; at most 2,000 are possible, so shorten it",
        ),
        (
            fields(description="d" * 20_001),
            "the description has 20,001 characters; at most 20,000 are possible",
        ),
        (
            fields(title="mug\nblue"),
            "the title has the control or invisible character U+000A; remove it",
        ),
        (fields(title="mug\u200b"), "the title has the control or invisible character U+200B; remove it"),
        (fields(title="\u202egum"), "the title has the control or invisible character U+202E; remove it"),
        (fields(title="mug\ud800"), "the title has the control or invisible character U+D800; remove it"),
        (fields(description="a\x00b"), "the description has the control or invisible character U+0000"),
        (fields(description="\ufeffa"), "the description has the control or invisible character U+FEFF"),
        (fields(categories=["Mugs", "B\x7fig"]), "has the control or invisible character U+007F; remove it"),
        (fields(categories=["Big\u00ad"]), "has the control or invisible character U+00AD; remove it"),
        (fields(categories=["c" * 513]), "has 513 characters; at most 512"),
        (fields(categories=[""]), "a category is empty; leave it out"),
        (fields(categories=["c"] * 101), "the item has 101 categories; at most 100 are possible"),
        (fields(attributes={"n" * 513: 1}), "has 513 characters; at most 512"),
        (fields(attributes={str(n): n for n in range(101)}), "the item has 101 attributes; at most 100"),
        (
            fields(attributes={"title": 1}),
            "an attribute cannot have the name 'title'; choose a single-line name",
        ),
        (
            fields(attributes={"a\tb": 1}),
            r"an attribute cannot have the name 'a\tb'; choose a single-line name",
        ),
        (fields(attributes={"": 1}), "an attribute cannot have the name ''; choose a single-line name"),
        (fields(attributes={"url": "u" * 2_001}), "the attribute 'url' cannot be 'uuu"),
        (
            fields(attributes={"id": 2**63}),
            "the attribute 'id' cannot be 9223372036854775808; give text of at most",
        ),
        (
            fields(attributes={"price": float("nan")}),
            "the attribute 'price' cannot be nan; give text of at most",
        ),
        (
            fields(attributes={"price": float("-inf")}),
            "the attribute 'price' cannot be -inf; give text of at most",
        ),
    ],
)
def test_refuses_what_the_api_refuses(item: dict[str, Any], said: str) -> None:
    assert said in (refusal(**item) or "")
    assert not accepted_by_the_api(item)


@pytest.mark.parametrize(
    "item",
    [
        fields(),
        fields(title=""),
        fields(
            title="\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 👩\u200d👧",
            description="Two\nlines\tand a tab\r\n",
            categories=["a\u00a0b"],
        ),
        fields(item_id="x" * 512, title="t" * 2_000, description="d" * 20_000),
        fields(item_id="https://shop.example/mug?colour=red#big"),
        fields(categories=["c" * 512] * 100),
        fields(attributes={str(n): n for n in range(100)}),
        fields(
            attributes={"id": 2**63 - 1, "low": -(2**63), "sold": True, "url": "u" * 2_000, "price": 1e308}
        ),
    ],
)
def test_takes_what_the_api_takes(item: dict[str, Any]) -> None:
    assert refusal(**item) is None
    assert accepted_by_the_api(item)


names = st.text(max_size=8) | st.sampled_from(["title", "image", "x" * 513])
values = (
    st.integers(-(2**64), 2**64) | st.floats(allow_nan=True) | st.booleans() | st.text(max_size=4)
) | st.just("x" * 2_001)


@given(names, names, names, st.lists(names, max_size=3), st.dictionaries(names, values, max_size=3))
def test_files_and_requests_have_equal_limits(
    item_id: str,
    title: str,
    description: str,
    categories: Sequence[str],
    attributes: Mapping[str, Attribute],
) -> None:
    item = fields(
        item_id=item_id,
        title=title,
        description=description,
        categories=list(categories),
        attributes=dict(attributes),
    )
    assert (refusal(**item) is None) is accepted_by_the_api(item)
