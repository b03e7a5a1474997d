"""The documents and the examples in them.

Every fenced block says by its first word what it is, and a request or an answer says by the rest what it belongs to:

    console                  commands after `$`, which are run, and whose answer the next block is
    sh                       commands: those of the API are run, of the others all that is named is looked up
    python                   run
    json METHOD PATH         the body of a request, which is sent
    json                     the answer to what stands before it; a paragraph `STATUS MEDIA-TYPE` may come between
    jsonl                    the same, of a JSON value a line
    text                     to be read: trees and drawings
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
DOCUMENTS = (*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md")
"""README.md comes last, since its examples change what is served."""

COMMANDS = ("console", "sh", "python")
VALUES = ("json", "jsonl")
KINDS = (*COMMANDS, *VALUES, "text")

_ANSWERED = re.compile(r"`(\d{3}) (\S+/\S+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: where its first line stands, its kind, the rest of its info string, its text."""

    document: Path
    line: int
    kind: str
    rest: str
    text: str
    before: str
    """The paragraph before it; empty where another block, a list or a table is."""

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    @property
    def answered(self) -> tuple[int, str] | None:
        """The status and the media type that the paragraph before it is, if it is that."""
        found = _ANSWERED.fullmatch(self.before)
        return (int(found[1]), found[2]) if found else None


@dataclass(frozen=True)
class Example:
    """What is to be done, and the answer that is shown, if one is."""

    block: Block
    answer: Block | None = field(default=None)

    def __str__(self) -> str:
        return str(self.block)


def blocks(document: Path) -> Iterator[Block]:
    """The fenced blocks of a document."""
    tokens = _parsed(document)
    for place, token in enumerate(tokens):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            kind, _, rest = token.info.strip().partition(" ")
            before = tokens[place - 2].content if tokens[place - 1].type == "paragraph_close" else ""
            yield Block(document, token.map[0] + 1, kind, rest, token.content, before)


def examples(document: Path) -> Iterator[Example]:
    """The blocks of a document that can be done, each with its answer."""
    found = [block for block in blocks(document) if block.kind != "text"]
    for block, after in zip_longest(found, found[1:]):
        if not is_answer(block):
            yield Example(block, after if after is not None and is_answer(after) else None)


def is_answer(block: Block) -> bool:
    """Whether it is what another block is answered with."""
    return block.kind in VALUES and not block.rest


def spans(document: Path) -> Iterator[str]:
    """The code within sentences and tables."""
    for token in _inline(document):
        if token.type == "code_inline":
            yield token.content


def links(document: Path) -> Iterator[str]:
    """Where its links and pictures lead."""
    for token in _inline(document):
        for name in ("href", "src"):
            if name in token.attrs:
                yield str(token.attrs[name])


def anchors(document: Path) -> set[str]:
    """What a link can name of a document after `#`: its headings, as GitHub spells them."""
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
