"""Texts with the relation in front of the item's text, cut so that both survive truncation (section 4.3.1).

The paper concatenates the two texts but does not say what happens if they are longer than the tower reads. A text tower
cuts the end, which would be either the relation or the item. Here, neither is cut below half of the tower's length.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

PIECE = re.compile(r"\s*\S{1,16}")
"""Unit of truncation: a word, or at most 16 characters of it, so that text without spaces is cut as well."""


@dataclass(frozen=True)
class Measured:
    """Text with the end of each piece in characters, and the number of tokens up to there."""

    text: str
    ends: tuple[int, ...]
    tokens: tuple[int, ...]

    def __len__(self) -> int:
        """Return the number of tokens of the text."""
        return self.tokens[-1] if self.tokens else 0

    def cut(self, room: int) -> str:
        """Return the first pieces that have at most `room` tokens together."""
        if len(self) <= room:
            return self.text
        kept = bisect_right(self.tokens, room)
        return self.text[: self.ends[kept - 1]] if kept else ""


class Concatenation:
    """Concatenation of relation descriptions and item texts for a tower that reads `room` tokens.

    `room` does not include special tokens. `count_tokens` returns the number of tokens of each given text, without
    special tokens. It is applied to each piece alone, which is exact for tokenizers that split at spaces, and close for
    others. The tower may therefore still cut a few tokens, but from the end, which belongs to the item.
    """

    def __init__(self, count_tokens: Callable[[Sequence[str]], Sequence[int]], room: int) -> None:
        self._count_tokens = count_tokens
        self._room = room

    def join(self, texts: Sequence[str], descriptions: Sequence[str]) -> list[list[str]]:
        """Return the text of each item under each relation; an empty text stays empty."""
        items, relations = self._measure(texts), self._measure(descriptions)
        return [[self._join(relation, item) for relation in relations] for item in items]

    def _join(self, relation: Measured, item: Measured) -> str:
        if not item.text:
            return ""
        kept = min(len(relation), max(self._room // 2, self._room - len(item)))
        return f"{relation.cut(kept)} {item.cut(self._room - kept)}".strip()

    def _measure(self, texts: Sequence[str]) -> list[Measured]:
        pieces = [list(PIECE.finditer(text.strip())) for text in texts]
        distinct = sorted({piece[0].strip() for found in pieces for piece in found})
        counts = dict(zip(distinct, self._count_tokens(distinct), strict=True)) if distinct else {}
        return [
            Measured(
                text.strip(),
                tuple(piece.end() for piece in found),
                tuple(accumulate(counts[piece[0].strip()] for piece in found)),
            )
            for text, found in zip(texts, pieces, strict=True)
        ]
