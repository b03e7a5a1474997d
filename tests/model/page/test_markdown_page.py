"""The page draws named blocks in its own way, and shows all other blocks as Markdown says."""

from model.page.markdown_page import inline, markdown_page
from model.page.page_header import page_header

from .parsed_page import Page

MARKDOWN = """# Title

Left out.

## First: of two

<!-- bars -->
| bin | count |
|---|---:|
| one | 7 |

<!-- unknown -->
- kept `a`

### Below

| name | reason |
|---|---|
| x | **why** |
"""


def test_named_block_is_drawn_and_an_unknown_name_is_not_shown() -> None:
    page = Page(markdown_page("T", "<p>head</p>", MARKDOWN, {"bars": "<svg></svg>"}))
    assert [table[0] for table in page.tables] == [["name", "reason"]]
    assert "svg" in page.tags
    assert "kept a" in page.text
    assert "unknown" not in page.text
    assert "Left out" not in page.text


def test_named_block_without_a_drawing_is_shown_as_markdown() -> None:
    page = Page(markdown_page("T", "", MARKDOWN, {}))
    assert page.tables[0] == [["bin", "count"], ["one", "7"]]


def test_columns_of_text_may_take_several_lines() -> None:
    html = markdown_page("T", "", MARKDOWN, {})
    assert '<th class="text">reason</th>' in html
    assert '<td class="text"><b>why</b></td>' in html
    assert "<td>7</td>" in html


def test_escaped_characters_are_no_markup() -> None:
    assert inline(r"\*\*a\*\* **b\*c** `d\*` \<e> f\g") == (
        "**a** <b>b*c</b> <code>d\\*</code> &lt;e&gt; f\\g"
    )


def test_header_shows_verdict_warnings_and_tiles_escaped() -> None:
    html = page_header("A **good** <verdict>", "good", ["Mind <i>"], {"items": "1,400"}, "All `n`.")
    assert '<div class="verdict good"><p>A <b>good</b> &lt;verdict&gt;</p></div>' in html
    assert "<li>Mind &lt;i&gt;</li>" in html
    assert "<div><dd>1,400</dd><dt>items</dt></div>" in html
    assert "All <code>n</code>." in html
