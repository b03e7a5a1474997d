"""Cells as values: what is written in many ways is read as one."""

from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.columns.lists import read_list
from model.data.columns.numbers import read_numbers
from model.data.columns.text_cleaning import clean_text
from model.data.columns.timestamps import read_times


@pytest.mark.parametrize(
    "cell",
    [
        "['Home', 'Garden']",
        '["Home", "Garden"]',
        "['Home' 'Garden']",
        "['Home'\n 'Garden']",
        "('Home', 'Garden')",
        '{Home,"Garden"}',
        "Home|Garden",
        " Home | Garden |",
        "Home > Garden",
        ["Home", "Garden", "Home", ""],
        [["Home"], ["Garden"]],
        '[["Home", "Garden"]]',
        [{"name": "Home", "id": 1}, {"name": "Garden"}],
        "['Home', nan, 'Garden']",
    ],
)
def test_lists_are_read_however_they_are_written(cell: object) -> None:
    assert read_list(cell) == ["Home", "Garden"]


@pytest.mark.parametrize("cell", [None, "", "[]", "()", float("nan"), [], [None], "|"])
def test_an_empty_list_has_no_texts(cell: object) -> None:
    assert read_list(cell) == []


@pytest.mark.parametrize("cell", ["[Sale] Mugs", "Home & Garden", "Pots, Pans", "a>b", "(new", "5"])
def test_a_text_that_is_no_list_stays_whole(cell: str) -> None:
    assert read_list(cell) == [cell]


def test_a_stated_separator_replaces_the_usual_ones() -> None:
    assert read_list("Home, Garden | Pots", ",") == ["Home", "Garden | Pots"]


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (
            ["$19.90", "US$ 5", "5 USD", "£3", "C$4.00", "-$3", "+4", "1,234.50"],
            [19.9, 5, 5, 3, 4, -3, 4, 1234.5],
        ),
        (
            ["19,90", "1.234,56 €", "5 €", "1 234,50 kr", "12,-", "CHF 2,00"],
            [19.9, 1234.56, 5, 1234.5, 12, 2],
        ),
        (["1'234.50", "1\u202f234.5", "1e3", ".5"], [1234.5, 1234.5, 1000, 0.5]),
        (["from $5", "1.99 - 2.99", "N/A", "12%", "two", "", "1.2.3", "5 mg"], [None] * 8),
        (["1,234", "2,500"], [1234, 2500]),
    ],
)
def test_numbers_are_read_with_their_currency_and_decimal_sign(
    texts: list[str], numbers: list[float | None]
) -> None:
    assert read_numbers(pl.Series(texts, dtype=pl.String)).to_list() == numbers


@given(st.lists(st.floats(-1e12, 1e12), min_size=1))
def test_numbers_of_python_are_read_exactly(numbers: list[float]) -> None:
    assert read_numbers(pl.Series([repr(number) for number in numbers])).to_list() == numbers


@pytest.mark.parametrize(
    "text",
    [
        "1366384515",
        "1366384515.0",
        "1366384515000",
        "1366384515000000",
        "1366384515000000000",
        "2013-04-19T15:15:15Z",
        "2013-04-19T15:15:15.000+00:00",
        "2013-04-19 15:15:15",
        "2013-04-19 15:15:15 UTC",
        "2013-04-19 08:15:15 -0700",
        "Fri Apr 19 08:15:15 -0700 2013",
        "Fri, 19 Apr 2013 15:15:15 GMT",
        " 2013/04/19 15:15:15 ",
    ],
)
def test_times_are_read_however_they_are_written(text: str) -> None:
    assert read_times(pl.Series([text])).to_list() == [1366384515.0]


@pytest.mark.parametrize(
    "text", ["2013/04/19 15:15", "04/19/2013 03:15 PM", "04/19/2013 03:15:00 PM", "19.04.2013 15:15"]
)
def test_times_may_lack_seconds_or_have_half_days(text: str) -> None:
    assert read_times(pl.Series([text])).to_list() == [1366384500.0]


def test_dates_are_midnights_and_ambiguous_ones_are_none() -> None:
    texts = pl.Series(["2013-04-19", "04 19, 2013", "19.04.2013", "Apr 19, 2013", "03/04/2013", "soon", None])
    assert read_times(texts).to_list() == [1366329600.0] * 4 + [None] * 3
    assert read_times(pl.Series(["20130419", "20130420"])).to_list() == [1366329600.0, 1366416000.0]
    assert read_times(pl.Series(["20130419", "1366329600"])).to_list() == [20130419.0, 1366329600.0]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Red &amp; co", "Red & co"),
        ("Red &amp;amp; co", "Red & co"),
        ("<p>Soft&nbsp;&#39;grip&#39;</p>", "Soft 'grip'"),
        ("&lt;b&gt;Bold&lt;/b&gt;", "Bold"),
        ("a<br/>b<br>c", "a b c"),
        ("<ul><li>a</li><li>b</li></ul>", "a b"),
        ("<script>var x = 1 < 2</script>Mug<!-- note -->", "Mug"),
        ("zero\u200bwidth\ufeff and\x07bell", "zerowidth and bell"),
        ("half \ud83d", "half \ufffd"),
        ("pair \ud83d\ude00", "pair 😀"),
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),
    ],
)
def test_texts_lose_markup_entities_and_invisible_characters(text: str, clean: str) -> None:
    changes: Counter[str] = Counter()
    assert clean_text(text, changes) == clean
    assert bool(changes) == (text != clean)


@pytest.mark.parametrize(
    "text", ["5 < 6 and 7 > 3", "I <3 mugs", "AT&T", "R&D;", "Size <M>", "a && b", "1&2"]
)
def test_texts_that_only_look_like_markup_stay(text: str) -> None:
    changes: Counter[str] = Counter()
    assert clean_text(text, changes) == text
    assert not changes


@given(st.text())
def test_a_clean_text_stays_clean(text: str) -> None:
    once = clean_text(text, Counter())
    assert "\x00" not in once
    once.encode()
