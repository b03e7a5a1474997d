"""HTML page of a report in Markdown: one file that loads nothing else and runs no script.

The page understands only the Markdown that our reports contain: headings, paragraphs, lists, tables, figures, bold,
code and escaped characters. All text is escaped. A figure is a paragraph `![caption](file)`. A block below a line
`<!-- name -->`, which Markdown does not show, may be drawn in another way on the page.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

from PIL import Image

from model.markdown_table import ESCAPED_BAR

from .data_uris import data_uri
from .page_style import STYLE

FIGURE = re.compile(r"!\[(?P<caption>.*)\]\((?P<file>[\w.-]+)\)")

MARK = re.compile(r"<!-- (?P<name>[\w-]+) -->")
"""Line that names the block below it."""

INLINE = re.compile(
    r"(?P<fence>`+)(?P<code>.+?)(?<!`)(?P=fence)(?!`)"
    r"|\\(?P<literal>[!-/:-@\[-`{-~])"
    r"|\*\*(?P<bold>(?:\\.|[^\\])+?)\*\*"
)
"""Code, an escaped character, or bold text (CommonMark 0.31, sections 6.1, 2.4 and 6.2)."""

MAX_NARROW = 1000
"""Width in pixels above which a figure scrolls sideways on a phone, so that its text can be read."""


def markdown_page(
    title: str, header: str, markdown: str, drawn: Mapping[str, str], folder: Path | None = None
) -> str:
    """Return a page with `header` (HTML), links to the sections, and the sections of `markdown`.

    What stands before the first section of `markdown` is left out. A figure or a named block that `drawn` contains is
    shown by the HTML given there. All other figures are files in `folder`.
    """
    blocks = [block.splitlines() for block in re.split(r"\n{2,}", markdown.strip())]
    starts = [number for number, block in enumerate(blocks) if block[0].startswith("## ")]
    sections = [blocks[start:end] for start, end in pairwise([*starts, len(blocks)])]
    headings = [blocks[start][0][3:] for start in starts]
    body = "\n".join(_section(section, drawn, folder) for section in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
{header}
{_contents(headings)}
</header>
<main>
{body}
</main>
</body>
</html>
"""


def _contents(headings: list[str]) -> str:
    links = (f'<a href="#{_anchor(heading)}">{escape(_short(heading))}</a>' for heading in headings)
    return f"<nav>{''.join(links)}</nav>"


def _short(heading: str) -> str:
    """Return the heading up to its first colon or comma."""
    return re.split(r"[:,]", heading)[0]


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def _section(blocks: list[list[str]], drawn: Mapping[str, str], folder: Path | None) -> str:
    """Return the HTML of a heading and the blocks below it."""
    [[heading], *rest] = blocks
    lines = [f"<h2>{inline(heading[3:])}</h2>", *(_block(block, drawn, folder) for block in rest)]
    return f'<section id="{_anchor(heading[3:])}">\n' + "\n".join(lines) + "\n</section>"


def _block(lines: list[str], drawn: Mapping[str, str], folder: Path | None) -> str:
    """Return the HTML of one block of Markdown."""
    if mark := MARK.fullmatch(lines[0]):
        if mark["name"] in drawn:
            return drawn[mark["name"]]
        lines = lines[1:]
    if not lines:
        return ""
    head = lines[0]
    if head.startswith("### "):
        return f"<h3>{inline(head[4:])}</h3>"
    if head.startswith("- "):
        return "<ul>" + "".join(f"<li>{inline(line[2:])}</li>" for line in lines) + "</ul>"
    if head.startswith("|"):
        return _table(lines)
    if found := FIGURE.fullmatch(head):
        return _figure(found["caption"], found["file"], drawn, folder)
    return f"<p>{inline(' '.join(lines))}</p>"


def _figure(caption: str, file: str, drawn: Mapping[str, str], folder: Path | None) -> str:
    content = drawn.get(file)
    if content is None:
        assert folder is not None
        with Image.open(folder / file) as picture:
            kind = ' class="wide"' if picture.width > MAX_NARROW else ""
        content = (
            f'<div class="scroll"><img{kind} src="{data_uri(folder / file)}" alt="{escape(caption)}"></div>'
        )
    return f"<figure>{content}<figcaption>{inline(caption)}</figcaption></figure>"


def _table(lines: list[str]) -> str:
    """Return a table in a box of its own, which scrolls sideways if it is wider than the page.

    A column that the second line does not align to the right contains text, which may take several lines.
    """
    head, rule, *rows = [_cells(line) for line in lines]
    kinds = ["" if mark.endswith(":") else ' class="text"' for mark in rule]
    return (
        '<div class="scroll" tabindex="0"><table><thead>'
        + _row(head, kinds, lambda _: "th")
        + "</thead><tbody>"
        + "".join(_row(row, kinds, lambda column: "td" if column else "th") for row in rows)
        + "</tbody></table></div>"
    )


def _cells(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", line.strip().removeprefix("|").removesuffix("|"))
    return [cell.strip().replace(ESCAPED_BAR, "|") for cell in cells]


def _row(cells: Sequence[str], kinds: Sequence[str], tag: Callable[[int], str]) -> str:
    filled = (
        f"<{tag(column)}{kinds[column] if column else ''}>{inline(cell)}</{tag(column)}>"
        for column, cell in enumerate(cells)
    )
    return f"<tr>{''.join(filled)}</tr>"


def inline(text: str) -> str:
    """Return one paragraph of Markdown as HTML: escaped text, with bold text and code marked."""
    parts = []
    end = 0
    for found in INLINE.finditer(text):
        parts.append(escape(text[end : found.start()]))
        if found["code"] is not None:
            parts.append(f"<code>{escape(_code_text(found['code']))}</code>")
        elif found["literal"] is not None:
            parts.append(escape(found["literal"]))
        else:
            parts.append(f"<b>{inline(found['bold'])}</b>")
        end = found.end()
    return "".join([*parts, escape(text[end:])])


def _code_text(text: str) -> str:
    """Return code without the blanks that separate it from its fence (CommonMark 0.31, section 6.1)."""
    if text.startswith(" ") and text.endswith(" ") and text.strip():
        return text[1:-1]
    return text
