"""Types of attribute columns: decided from all values, without losing codes, prices or digits."""

from typing import Any

import pytest

from model.data.columns.column_types import typed_column


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["00012", "13"], "text", ["00012", "13"]),
        (["1", "2", ""], "integer", [1, 2, None]),
        (["1234567890123456794", "3"], "integer", [1234567890123456794, 3]),
        (["18446744073709551616", "3"], "text", ["18446744073709551616", "3"]),
        (["1.5"] * 9 + ["from $5"], "number", [1.5] * 9 + [None]),
        (["1.5"] * 3 + ["N/A"], "number", [1.5] * 3 + [None]),
        (["19,90", "5,00"], "number", [19.9, 5.0]),
        (["S", "M", "38"], "text", ["S", "M", "38"]),
        (["true", "False", ""], "boolean", [True, False, None]),
        ([1, 2.5, None], "number", [1.0, 2.5, None]),
        ([2.0, float("nan")], "number", [2.0, None]),
        ([True, None], "boolean", [True, None]),
        (["Acme", "N/A"], "text", ["Acme", "N/A"]),
        (["A4", "A5", "A3"], "text", ["A4", "A5", "A3"]),
        (["4001", "77E3", "4002"], "text", ["4001", "77E3", "4002"]),
        (["4001.5", "77E3"], "number", [4001.5, 77000.0]),
        (["1234567890123456789", "12.5"], "text", ["1234567890123456789", "12.5"]),
        (["9007199254740994", "12.5"], "number", [9007199254740994.0, 12.5]),
    ],
)
def test_the_type_follows_from_the_values(cells: list[Any], kind: str, values: list[Any]) -> None:
    column = typed_column("size", cells)
    assert (column.type, column.values.to_list()) == (kind, values)


def test_a_column_may_have_any_name() -> None:
    for name in ("missing", "text", "grouped", "number", ""):
        column = typed_column(name, ["1", "N/A", "2"])
        assert (column.values.name, column.values.to_list()) == (name, [1, None, 2])


def test_values_that_do_not_fit_are_counted_with_examples() -> None:
    column = typed_column("price", ["1.5"] * 28 + ["from $5", "call us"])
    assert (column.unread, column.unread_examples) == (2, ("from $5", "call us"))
    assert column.decision == "93.3% of the values are numbers"
    assert column.examples == ("1.5", "from $5", "call us")


def test_a_code_stays_a_text_by_its_name() -> None:
    assert typed_column("EAN", ["4006381333931"]).values.to_list() == ["4006381333931"]


def test_texts_of_a_format_with_types_stay_texts_unless_they_are_prices() -> None:
    assert typed_column("size", ["42"], untyped=False).values.to_list() == ["42"]
    assert typed_column("size", [42], untyped=False).values.to_list() == [42]
    assert typed_column("list_price", ["$42"], untyped=False).values.to_list() == [42]


def test_a_stated_type_overrides_the_decision() -> None:
    column = typed_column("size", ["42", "XL"], "number")
    assert (column.values.to_list(), column.unread, column.decision) == ([42.0, None], 1, "stated")
    assert typed_column("year", ["1999"], "text").values.to_list() == ["1999"]


@pytest.mark.parametrize(
    ("cells", "stated", "values"),
    [
        (["12.0", "1,234", "5.5", "1234567890123456789"], "integer", [12, 1234, None, 1234567890123456789]),
        ([12.0, None, 3.0], "integer", [12, None, 3]),
        (["1", "0", "Yes", "n", "T", "maybe"], "boolean", [True, False, True, False, True, None]),
    ],
)
def test_a_stated_type_reads_what_means_the_same(cells: list[Any], stated: Any, values: list[Any]) -> None:
    column = typed_column("stock", cells, stated)
    assert column.values.to_list() == values
    assert column.unread == sum(value is None for value in values) - cells.count(None)
