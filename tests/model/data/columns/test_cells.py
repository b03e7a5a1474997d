"""Cells as values: what is written in many ways is read as one."""

import time
from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.columns.lists import read_list, read_pictures
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
        '[{"id": 5, "slug": "Home"}, {"id": 6, "name": null, "slug": "Garden"}]',
        {"Home": 12, "Garden": 3},
        "['Home', nan, 'Garden']",
    ],
)
def test_lists_are_read_however_they_are_written(cell: object) -> None:
    assert read_list(cell) == ["Home", "Garden"]


@pytest.mark.parametrize(
    "cell",
    [None, "", "[]", "()", "{}", " {} ", float("nan"), [], [None], "|", "nan", "NULL", "\\N", "N/A", "-"],
)
def test_an_empty_list_has_no_texts(cell: object) -> None:
    assert read_list(cell) == []


@pytest.mark.parametrize("cell", ["[Sale] Mugs", "Home & Garden", "Pots, Pans", "a>b", "(new", "5"])
def test_a_text_that_is_no_list_stays_whole(cell: str) -> None:
    assert read_list(cell) == [cell]


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        ("['a\nb' 'c']", ["a\nb", "c"]),
        (r"['C:\Users' 'x']", [r"C:\Users", "x"]),
        (r"['a\d', 'x']", [r"a\d", "x"]),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_list_with_odd_escape_sequences_is_read(cell: str, texts: list[str]) -> None:
    assert read_list(cell) == texts


@pytest.mark.parametrize(
    "cell",
    [
        "a.png",
        " a.png ",
        ["a.png", "a.png"],
        "['a.png']",
        '[{"src": "a.png", "id": 5}]',
        '{"url": "a.png"}',
        {"href": "a.png"},
    ],
)
def test_pictures_are_read_however_they_are_written(cell: object) -> None:
    assert read_pictures(cell) == ["a.png"]


@pytest.mark.parametrize("cell", [None, "", "NULL", "nan", "\\N", "{}", "[]", "-", "no_selection", [None]])
def test_a_cell_without_a_picture_has_none(cell: object) -> None:
    assert read_pictures(cell) == []


def test_a_stated_separator_replaces_the_usual_ones() -> None:
    assert read_list("Home, Garden | Pots", (",",)) == ["Home", "Garden | Pots"]


def test_a_list_of_paths_is_split_at_both_separators() -> None:
    assert read_list("Shop/Home/Lamps,Shop/Sale", (",", "/")) == ["Shop", "Home", "Lamps", "Sale"]


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
        (["1,234,567.00", "1,234,567,890", "-2,000,000"], [1234567, 1234567890, -2000000]),
        (["1.234.567,89", "2.000.000,5", "1.234"], [1234567.89, 2000000.5, 1234]),
        (["1 234 567 890,5", "1'234'567,00"], [1234567890.5, 1234567]),
        (["₹1,23,456.00", "₹12,34,567"], [123456, 1234567]),
        (["19.90", "1.50", "2.50", "0,1234", "0,123", "12,34"], [19.9, 1.5, 2.5, None, None, None]),
        (["19,90", "1,50", "1.2345", "0.123"], [19.9, 1.5, 1.2345, 0.123]),
        (["R$ 5", "R 199.90", "A$5", "NZ$2", "Rs. 5", "5.00 US$", "Fr. 5.-"], [5, 199.9, 5, 2, 5, 5, 5]),
        (["A4", "C5", "R17", "US 9", "a 3", "100_200"], [None] * 6),
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
        "20130419T151515Z",
    ],
)
def test_times_are_read_however_they_are_written(text: str) -> None:
    assert read_times(pl.Series([text])).to_list() == [1366384515.0]


@pytest.mark.parametrize(
    "text",
    [
        "2013-04-19T15:15", "2013-04-19T15:15Z", "2013-04-19T17:15+02:00", "2013/04/19 15:15", "04/19/2013 03:15 PM",
        "04/19/2013 03:15:00 PM", "19.04.2013 15:15",
    ],
)  # fmt: skip
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


@pytest.mark.parametrize(
    "text",
    ["<!--" * 250_000, "<script>" * 125_000, "<script " * 125_000, "<!-- a -->" * 100_000, "<p" * 500_000],
)
def test_the_time_to_clean_a_text_grows_with_its_length(text: str) -> None:
    begun = time.monotonic()
    clean_text(text, Counter())
    assert time.monotonic() - begun < 10


def test_comments_and_scripts_are_removed_even_after_open_ones() -> None:
    assert clean_text("a <!-- x <b>y</b> --> b", Counter()) == "a b"
    assert clean_text("<script>if (a < b) c</script>Mug", Counter()) == "Mug"
    assert clean_text("<!-- open <!-- closed -->Mug", Counter()) == "<!-- open Mug"
