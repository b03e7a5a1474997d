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
    ],
)
def test_the_type_follows_from_the_values(cells: list[Any], kind: str, values: list[Any]) -> None:
    column = typed_column("size", cells)
    assert (column.type, column.values.to_list()) == (kind, values)


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
