"""Conditions evaluated on written or appended columns agree with a check of each item."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from indexes.storage.attributes import CATEGORIES, AppendedAttributes, Attributes, write_attributes
from indexes.storage.filters import Condition, OfQuery
from model.records import Attribute, Item

VALUES = st.one_of(
    st.sampled_from(["Ton", "Seide", "1"]), st.integers(0, 3), st.sampled_from([0.5, True, False])
)
ITEMS = st.lists(
    st.builds(
        lambda categories, attributes: Item("id", "", "", tuple(categories), "", "", attributes),
        st.lists(st.sampled_from(["Garden", "Tools", "Office"]), max_size=2),
        st.dictionaries(st.sampled_from(["price", "brand"]), VALUES),
    ),
    max_size=200,
)
CONDITIONS = st.builds(
    Condition,
    st.none() | st.frozensets(st.one_of(VALUES, st.sampled_from(["Garden", "Tools"])), max_size=3),
    st.none() | st.sampled_from([0, 0.5, 1]),
    st.none() | st.sampled_from([0.5, 1, 2]),
)
WHERE = st.dictionaries(st.sampled_from(["price", "brand", CATEGORIES, "unknown"]), CONDITIONS, min_size=1)


def meets(condition: Condition, value: Attribute) -> bool:
    if condition.any_of is not None and value not in condition.any_of:
        return False
    if isinstance(value, str):
        return condition.least is None and condition.most is None
    low, high = condition.least, condition.most
    assert not isinstance(low, OfQuery)
    assert not isinstance(high, OfQuery)
    return (low is None or value >= low) and (high is None or value <= high)


def met(item: Item, where: dict[str, Condition]) -> bool:
    def values(name: str) -> list[Attribute]:
        if name == CATEGORIES:
            return [*item.categories]
        return [item.attributes[name]] if name in item.attributes else []

    return all(any(meets(one, value) for value in values(name)) for name, one in where.items())


@given(items=ITEMS, where=WHERE, known=st.integers(0, 200))
@settings(deadline=None)
def test_mask_ignores_items_appended_later(
    items: list[Item], where: dict[str, Condition], known: int
) -> None:
    appended = AppendedAttributes()
    for place, item in enumerate(items):
        appended.append(place, item)
    known = min(known, len(items))
    assert appended.mask(where, known).tolist() == [met(item, where) for item in items[:known]]
    assert appended.names(known) == {name for item in items[:known] for name in item.attributes}


@given(items=ITEMS, where=WHERE)
@example(items=[Item("id", "", "", (), "", "")], where={CATEGORIES: Condition()})
@settings(max_examples=30, deadline=None)
def test_written_columns_agree_with_check_of_each_item(
    items: list[Item], where: dict[str, Condition]
) -> None:
    with TemporaryDirectory() as folder:
        write_attributes(Path(folder), items)
        assert Attributes(Path(folder)).mask(where).tolist() == [met(item, where) for item in items]


@pytest.mark.parametrize("name", ["price", CATEGORIES])
def test_mask_is_empty_before_first_append(name: str) -> None:
    assert AppendedAttributes().mask({name: Condition()}, 0).tolist() == []
