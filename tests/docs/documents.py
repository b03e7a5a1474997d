"""Parser of the documents and the examples in them.

The first word of the info string of a fenced block is its kind. For the body of a request, the rest is the route:

    console                  commands after `$`, which are run; the next block is the response
    sh                       commands: requests to the API are sent, and the names in all other commands are checked
    python                   a program, which is run
    json METHOD PATH         a request body, which is sent
    json                     the response to the block before it; a paragraph `STATUS MEDIA-TYPE` may come between them
    json excerpt             like json, but the response may have more fields than the block shows
    jsonl                    like either kind of json, with one JSON value per line
    text                     text that is not checked, such as trees and drawings
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
CHANGING = (ROOT / "docs" / "api.md", ROOT / "docs" / "operations.md")
"""Documents whose examples change the served index."""

OUTSIDE = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "examples" / "README.md",
)
"""Documents outside `docs/`."""

DOCUMENTS = (*OUTSIDE, *sorted({*(ROOT / "docs").glob("*.md")} - {*CHANGING}), *CHANGING)
"""Documents to check. The documents in `CHANGING` come last."""

COMMANDS = ("console", "sh", "python")
VALUES = ("json", "jsonl")
KINDS = (*COMMANDS, *VALUES, "text")
EXCERPT = "excerpt"

_ANSWERED = re.compile(r"`(\d{3}) (\S+/\S+)`")


@dataclass(frozen=True)
class Block:
    """Fenced block: its document, the number of its first line, its kind, the rest of its info string, and its text."""

    document: Path
    line: int
    kind: str
    rest: str
    text: str
    before: str
    """Paragraph directly before the block; empty if the block does not follow a paragraph."""

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def is_excerpt(self) -> bool:
        """Whether the block shows only some fields of a response."""
        return self.kind == "json" and self.rest == EXCERPT

    @property
    def answered(self) -> tuple[int, str] | None:
        """Status and media type in the paragraph before the block, or None if the paragraph is anything else."""
        found = _ANSWERED.fullmatch(self.before)
        return (int(found[1]), found[2]) if found else None


@dataclass(frozen=True)
class Example:
    """Block to run, and the response that the document shows for it, if any."""

    block: Block
    answer: Block | None = field(default=None)

    def __str__(self) -> str:
        return str(self.block)


def blocks(document: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a document."""
    tokens = _parsed(document)
    for place, token in enumerate(tokens):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            kind, _, rest = token.info.strip().partition(" ")
            before = tokens[place - 2].content if tokens[place - 1].type == "paragraph_close" else ""
            yield Block(document, token.map[0] + 1, kind, rest, token.content, before)


def examples(document: Path) -> Iterator[Example]:
    """Yield the blocks of a document that can be run, each with its response."""
    found = [block for block in blocks(document) if block.kind != "text"]
    for block, after in zip_longest(found, found[1:]):
        if not is_answer(block):
            yield Example(block, after if after is not None and is_answer(after) else None)


def is_answer(block: Block) -> bool:
    """Return whether the block is the response to another block."""
    return block.kind in VALUES and (not block.rest or block.is_excerpt)


def spans(document: Path) -> Iterator[str]:
    """Yield the inline code of a document."""
    for token in _inline(document):
        if token.type == "code_inline":
            yield token.content


def links(document: Path) -> Iterator[str]:
    """Yield the targets of all links and pictures in a document."""
    for token in _inline(document):
        for name in ("href", "src"):
            if name in token.attrs:
                yield str(token.attrs[name])


def anchors(document: Path) -> set[str]:
    """Return the anchors of the headings of a document, as GitHub generates them."""
    tokens = _parsed(document)
    headings = [
        tokens[place + 1].content for place, token in enumerate(tokens) if token.type == "heading_open"
    ]
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def _inline(document: Path) -> Iterator[Token]:
    for token in _parsed(document):
        yield from token.children or ()


def _parsed(document: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(document.read_text("utf-8"))
