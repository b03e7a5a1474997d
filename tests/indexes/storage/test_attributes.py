"""Conditions evaluated on written or appended columns agree with a check of each item."""

import math
import operator
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from indexes.storage.attributes import (
    CATEGORIES,
    SORTED_DIR,
    AppendedAttributes,
    Attributes,
    copy_attributes,
    write_attributes,
)
from indexes.storage.filters import Condition, OfQuery
from indexes.storage.sorted_column import SortedColumn
from model.records import Attribute, Item

LARGE = st.sampled_from(
    [sign * (base + more) for sign in (1, -1) for base in (2**53, 10**18, 2**62) for more in range(-2, 4)]
    + [2**63 - 1, -(2**63), 1234567890123456794, 1234567890123456768]
)
"""Whole numbers of which a double holds some exactly and rounds others to these."""

VALUES = st.one_of(
    st.sampled_from(["Ton", "Seide", "1"]),
    st.integers(0, 3),
    st.sampled_from([0.5, True, False]),
    LARGE | LARGE.map(float),
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
) | st.builds(
    Condition, st.none(), *[st.none() | LARGE | LARGE.map(float) | st.sampled_from([math.inf, -math.inf])] * 4
)
WHERE = st.dictionaries(st.sampled_from(["price", "brand", CATEGORIES, "unknown"]), CONDITIONS, min_size=1)


def meets(condition: Condition, value: Attribute) -> bool:
    if condition.any_of is not None and value not in condition.any_of:
        return False
    if isinstance(value, str):
        return not condition.ranged
    bounds = (condition.least, condition.most, condition.above, condition.below)
    for bound, holds in zip(bounds, (operator.ge, operator.le, operator.gt, operator.lt), strict=True):
        assert not isinstance(bound, OfQuery)
        if bound is not None and not holds(value, bound):  # Python compares integers and floats exactly
            return False
    return True


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
    names = {name for item in items[:known] for name in item.attributes}
    assert appended.numbers(known) | appended.texts(known) == names


@given(items=ITEMS, where=WHERE)
@example(items=[Item("id", "", "", (), "", "")], where={CATEGORIES: Condition()})
@settings(max_examples=30, deadline=None)
def test_written_columns_agree_with_check_of_each_item(
    items: list[Item], where: dict[str, Condition]
) -> None:
    with TemporaryDirectory() as folder:
        write_attributes(Path(folder), items)
        assert Attributes(Path(folder)).mask(where).tolist() == [met(item, where) for item in items]


@given(items=ITEMS, where=WHERE)
@settings(max_examples=30, deadline=None)
def test_generation_without_sorted_columns_gives_the_same_rows_and_gets_them_when_copied(
    items: list[Item], where: dict[str, Condition]
) -> None:
    with TemporaryDirectory() as folder, TemporaryDirectory() as copy:
        write_attributes(Path(folder), items)
        sorted_columns = {path.name: path.read_bytes() for path in (Path(folder) / SORTED_DIR).iterdir()}
        shutil.rmtree(Path(folder) / SORTED_DIR)
        assert Attributes(Path(folder)).mask(where).tolist() == [met(item, where) for item in items]
        copy_attributes(Path(folder), Path(copy))
        assert {
            path.name: path.read_bytes() for path in (Path(copy) / SORTED_DIR).iterdir()
        } == sorted_columns


@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), min_size=1, max_size=40),
    wanted=st.frozensets(st.text(max_size=3), max_size=3),
)
@settings(deadline=None)
def test_any_text_is_found_among_any_texts(texts: list[str], wanted: frozenset[str]) -> None:
    column, met = SortedColumn.of(pl.Series(texts)), np.zeros(len(texts), bool)
    wanted |= {texts[0]}
    column.mark(Condition(wanted), met)
    assert met.tolist() == [text in wanted for text in texts]


def test_filter_reads_only_the_rows_that_it_allows() -> None:
    """A filter on a million items must not look at each of them; see docs/decisions.md."""
    column = SortedColumn.of(pl.Series([f"brand {place % 100}" for place in range(10_000)]))
    read = []

    class Rows(np.ndarray):
        def __getitem__(self, span: Any) -> Any:
            read.append(len(range(*span.indices(len(self)))))
            return super().__getitem__(span)

    met = np.zeros(10_000, bool)
    replace(column, rows=column.rows.view(Rows)).mark(
        Condition(frozenset({"brand 7", "brand 8", "none"})), met
    )
    assert (sorted(read), met.sum()) == ([100, 100], 200)


@pytest.mark.parametrize("bound", [math.nan, math.inf, -math.inf, 10**40, -(10**40)])
def test_extreme_bounds_compare_like_python(bound: float) -> None:
    for column in (pl.Series([-1.0, 0.0, 2.5]), pl.Series([2**53 + 1, 2**62 + 1])):
        for place, holds in enumerate((operator.ge, operator.le, operator.gt, operator.lt)):
            condition = Condition(None, *(bound if place == field else None for field in range(4)))
            met = np.zeros(len(column), bool)
            SortedColumn.of(column).mark(condition, met)
            assert met.tolist() == [holds(value, bound) for value in column]


@pytest.mark.parametrize("name", ["price", CATEGORIES])
def test_mask_is_empty_before_first_append(name: str) -> None:
    assert AppendedAttributes().mask({name: Condition()}, 0).tolist() == []


def test_ids_of_nineteen_digits_are_told_apart(tmp_path: Path) -> None:
    numbers = [1234567890123456790 + place for place in range(8)]
    items = [Item(str(number), "", "", (), "", "", {"variant": number}) for number in numbers]
    write_attributes(tmp_path, items)
    wanted = {"variant": Condition(frozenset([1234567890123456794]))}
    assert Attributes(tmp_path).mask(wanted).tolist() == [number == 1234567890123456794 for number in numbers]


def test_bound_of_the_query_item_is_exact() -> None:
    bound = OfQuery("variant").value({"variant": 1234567890123456794})
    assert bound == 1234567890123456794
    assert OfQuery("price", 2.0).value({"price": 3}) == 6.0
