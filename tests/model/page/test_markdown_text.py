"""Text from outside is shown as it is, by a full Markdown parser and by our page alike."""

from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from model.markdown_table import table
from model.page.markdown_page import markdown_page
from model.page.markdown_text import code, escaped, shown_text

from .parsed_page import Page

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")

HOSTILE = [
    "<script>alert(1)</script>",
    '<img src="http://example.com/x.png" onerror=alert(1)>',
    "a | b || c \\| d \\\\| e \\",
    "**bold** _it_ ~~gone~~ `code` ``two`` $5 and $6$",
    "![picture](http://example.com/x.png) [link](javascript:alert(1)) <http://example.com>",
    "# heading",
    "- item",
    "12) second",
    "&lt;b&gt; &#42; AT&T",
    "<!-- pairs -->",
    "line\nbreak\r\n\n## Section\u2028end",
    "Émile's café 🧸👩‍👩‍👧",
    "| --- |",
]


def cell_of(markdown: str) -> str:
    """Return the text of the first cell below the head of a table, as a Markdown parser shows it."""
    return Page(MARKDOWN.render(markdown)).tables[0][1][0].strip()


def plain(text: str) -> str:
    """Return the text that is to be seen: without isolates, and with single blanks."""
    return " ".join(text.replace("\u2068", "").replace("\u2069", "").split())


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_in_its_cell(text: str) -> None:
    lines = "\n".join(table(["title", "n"], [[escaped(text), "7"], ["next", "8"]]))
    for page in (Page(MARKDOWN.render(lines)), Page(markdown_page("T", "", f"## S\n\n{lines}", {}))):
        assert [[plain(cell) for cell in row] for row in page.tables[0][1:]] == [
            [plain(shown_text(text)), "7"],
            ["next", "8"],
        ]
        assert not {"script", "img", "em", "strong", "b", "s", "code"} & set(page.tags)
        assert page.loaded in ([], ["#s"])


@given(st.text(st.characters(exclude_categories=["Cs", "Zs"]) | st.sampled_from("|\\`*_<&$ "), max_size=60))
def test_any_text_is_shown_as_it_is(text: str) -> None:
    expected = plain(shown_text(text))
    lines = "\n".join(table(["title", "n"], [[f"x{escaped(text)}x", code(text)]]))
    page = Page(markdown_page("T", "", f"## S\n\n{lines}", {}))
    first, second = page.tables[0][1]
    assert plain(first) == plain(f"x{shown_text(text)}x")
    assert plain(second) == expected
    assert unescape(plain(cell_of(lines))) == plain(f"x{shown_text(text)}x")


def test_text_from_right_to_left_stays_in_its_place() -> None:
    assert escaped("שלב") == "\u2068שלב\u2069"
    assert escaped("abc\u202egnp.exe") == "abcgnp.exe"


def test_long_text_is_cut_and_odd_characters_are_replaced() -> None:
    assert escaped("w" * 500, most=10) == "w" * 9 + "…"
    assert shown_text("a\x00b\x1b[31mc\ud800d") == "ab[31mc\ufffdd"


def test_code_with_backticks_gets_a_longer_fence() -> None:
    assert code("a``b") == "``` a``b ```"
    assert "<code>a``b</code>" in markdown_page("T", "", f"## S\n\n{code('a``b')}", {})
