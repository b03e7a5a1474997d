"""`report.html` of an evaluation: the text of `report.md` and its figures in one file that loads nothing else.

The page understands only the Markdown that this package writes: headings, paragraphs, lists, tables, figures, bold and
code. All text is escaped. A figure is a paragraph `![caption](file)`.
"""

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from html import escape
from io import BytesIO
from itertools import pairwise
from pathlib import Path

from PIL import Image

from model.evaluation.figures import EvaluationReport
from model.markdown_table import ESCAPED_BAR

from .page_style import STYLE

FIGURE = re.compile(r"!\[(?P<caption>.*)\]\((?P<file>[\w.-]+)\)")

MAX_PNG_BYTES = 300_000
"""Size above which a figure is embedded as JPEG: only figures full of pictures are larger."""

JPEG_QUALITY = 82

MAX_NARROW = 1000
"""Width in pixels above which a figure scrolls sideways on a phone, so that its text can be read."""

TILES = {
    "items": "unseen items",
    "edges": "related pairs",
    "relations": "relations",
    "queries": "queries",
    "candidates": "candidates per query",
}
"""Counts shown below the verdict, by their key in `data` of report.json."""


def evaluation_page(
    report: EvaluationReport, markdown: str, folder: Path, drawn: Mapping[str, str] | None = None
) -> str:
    """Return the content of `report.html`.

    `markdown` is the content of `report.md`, and `folder` contains its figures. A figure in `drawn` is shown by the
    HTML given there instead of its file.
    """
    blocks = [block.splitlines() for block in re.split(r"\n{2,}", markdown.strip())]
    starts = [number for number, block in enumerate(blocks) if block[0].startswith("## ")]
    sections = [blocks[start:end] for start, end in pairwise([*starts, len(blocks)])]
    headings = [blocks[start][0][3:] for start in starts]
    counts = " ".join(blocks[starts[0] - 1])
    body = "\n".join(_section(section, folder, drawn or {}) for section in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>Evaluation</h1>
{_verdict(report)}
{_tiles(report)}
<p class="soft">{_inline(counts)}</p>
{_contents(headings)}
</header>
<main>
{body}
</main>
</body>
</html>
"""


def _verdict(report: EvaluationReport) -> str:
    own = report.verdict
    warnings = "".join(f"<li><b>Warning:</b> {_inline(warning)}</li>" for warning in own.warnings)
    return (
        f'<div class="verdict {own.effect or "open"}"><p>{_inline(own.sentence)}</p></div>'
        + (f'<ul class="warnings">{warnings}</ul>' if warnings else "")
    )  # fmt: skip


def _tiles(report: EvaluationReport) -> str:
    tiles = (
        f"<div><dd>{getattr(report.data, key):,}</dd><dt>{label}</dt></div>" for key, label in TILES.items()
    )
    return f'<dl class="tiles">{"".join(tiles)}</dl>'


def _contents(headings: list[str]) -> str:
    links = (f'<a href="#{_anchor(heading)}">{escape(_short(heading))}</a>' for heading in headings)
    return f"<nav>{''.join(links)}</nav>"


def _short(heading: str) -> str:
    """Return the heading up to its first colon or comma."""
    return re.split(r"[:,]", heading)[0]


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def _section(blocks: list[list[str]], folder: Path, drawn: Mapping[str, str]) -> str:
    """Return the HTML of a heading and the blocks below it."""
    [[heading], *rest] = blocks
    lines = [f"<h2>{_inline(heading[3:])}</h2>", *(_block(block, folder, drawn) for block in rest)]
    return f'<section id="{_anchor(heading[3:])}">\n' + "\n".join(lines) + "\n</section>"


def _block(lines: list[str], folder: Path, drawn: Mapping[str, str]) -> str:
    """Return the HTML of one block of Markdown."""
    head = lines[0]
    if head.startswith("- "):
        return "<ul>" + "".join(f"<li>{_inline(line[2:])}</li>" for line in lines) + "</ul>"
    if head.startswith("|"):
        return _table(lines)
    if found := FIGURE.fullmatch(head):
        return _figure(found["caption"], found["file"], folder, drawn)
    return f"<p>{_inline(' '.join(lines))}</p>"


def _figure(caption: str, file: str, folder: Path, drawn: Mapping[str, str]) -> str:
    content = drawn.get(file)
    if content is None:
        with Image.open(folder / file) as picture:
            kind = ' class="wide"' if picture.width > MAX_NARROW else ""
        content = (
            f'<div class="scroll"><img{kind} src="{data_uri(folder / file)}" alt="{escape(caption)}"></div>'
        )
    return f"<figure>{content}<figcaption>{_inline(caption)}</figcaption></figure>"


def data_uri(path: Path) -> str:
    """Return the picture at `path` as a data URI, a large PNG as JPEG."""
    content = path.read_bytes()
    if len(content) <= MAX_PNG_BYTES:
        return f"data:image/png;base64,{b64encode(content).decode()}"
    with Image.open(path) as picture:
        return jpeg_uri(picture.convert("RGB"), JPEG_QUALITY)


def jpeg_uri(picture: Image.Image, quality: int) -> str:
    """Return a picture as a data URI in JPEG."""
    file = BytesIO()
    picture.save(file, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"


def _table(lines: list[str]) -> str:
    """Return a table in a box of its own, which scrolls sideways if it is wider than the page."""
    head, _, *rows = [_cells(line) for line in lines]
    return (
        '<div class="scroll" tabindex="0"><table><thead>'
        + _row(head, lambda _: "th")
        + "</thead><tbody>"
        + "".join(_row(row, lambda column: "td" if column else "th") for row in rows)
        + "</tbody></table></div>"
    )


def _cells(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", line.strip().removeprefix("|").removesuffix("|"))
    return [cell.strip().replace(ESCAPED_BAR, "|") for cell in cells]


def _row(cells: list[str], tag: Callable[[int], str]) -> str:
    filled = (f"<{tag(column)}>{_inline(cell)}</{tag(column)}>" for column, cell in enumerate(cells))
    return f"<tr>{''.join(filled)}</tr>"


def _inline(text: str) -> str:
    """Escape a text, and mark bold text and code."""
    safe = escape(text)
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", safe)
