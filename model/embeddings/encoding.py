"""Encoded items without torch: unit vectors under every relation, and the tokens they are computed from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np
from jaxtyping import Float, Float32, Int64
from numpy import ndarray

from model.similarity import View

EQUAL_SHARE = 0.5
"""Weight of the text vector in the average view, if text and image count equally."""


@dataclass(frozen=True)
class TokenRows:
    """Tokens of several items (H of eq. 3) in one modality, concatenated without padding.

    Item i has the rows from `starts[i]` to `starts[i + 1]` (exclusive). An item without this modality has no rows.
    """

    states: Float[ndarray, "tokens dim"]
    starts: Int64[ndarray, " bounds"]

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.starts) - 1

    def take(self, rows: Int64[ndarray, " taken"]) -> "TokenRows":
        """Copy the tokens of the items at `rows`, in that order; a memory-mapped file is read only once."""
        firsts = self.starts[rows]
        counts = self.starts[rows + 1] - firsts
        starts = np.append(0, np.cumsum(counts))
        places = np.arange(starts[-1]) + np.repeat(firsts - starts[:-1], counts)
        return TokenRows(np.asarray(self.states[places]), starts)

    @classmethod
    def joined(cls, parts: Sequence["TokenRows"]) -> "TokenRows":
        """Concatenate the items of several parts."""
        ends = np.cumsum([0, *(len(part.states) for part in parts)])
        starts = [part.starts[:-1] + end for part, end in zip(parts, ends[:-1], strict=True)]
        return cls(np.concatenate([part.states for part in parts]), np.concatenate([*starts, ends[-1:]]))


@dataclass(frozen=True)
class ItemTokens:
    """Tokens of several items in both modalities."""

    text: TokenRows
    image: TokenRows

    def take(self, rows: Int64[ndarray, " taken"]) -> "ItemTokens":
        """Copy the tokens of the items at `rows`, in that order."""
        return ItemTokens(self.text.take(rows), self.image.take(rows))

    @classmethod
    def joined(cls, parts: Sequence["ItemTokens"]) -> "ItemTokens":
        """Concatenate the items of several parts."""
        return cls(
            TokenRows.joined([part.text for part in parts]), TokenRows.joined([part.image for part in parts])
        )


@dataclass(frozen=True)
class Encoding:
    """Unit vectors of several items under every relation, in both modalities.

    The vectors of a modality that an item does not have are zero. `tokens` is None unless tokens were requested.
    `text_share` is the weight of the text vector in the average view; the paper has 0.5.
    """

    text: Float32[ndarray, "items relations dim"]
    image: Float32[ndarray, "items relations dim"]
    tokens: ItemTokens | None = None
    text_share: float = EQUAL_SHARE

    @property
    def average(self) -> Float32[ndarray, "items relations dim"]:
        """Weighted mean of the two unit vectors, renormalised; zero if they cancel out."""
        return average(self.text, self.image, self.text_share)

    def without_text(self) -> "Encoding":
        """Return the encoding without the text: zero text vectors and no text tokens."""
        tokens = self.tokens
        if tokens is not None:
            none = TokenRows(tokens.text.states[:0], np.zeros_like(tokens.text.starts))
            tokens = ItemTokens(none, tokens.image)
        return replace(self, text=np.zeros_like(self.text), tokens=tokens)

    def split(self) -> list["Encoding"]:
        """Split into one encoding per item."""
        places = range(len(self.text))
        tokens = [None if self.tokens is None else self.tokens.take(np.asarray([place])) for place in places]
        return [
            Encoding(
                self.text[place : place + 1], self.image[place : place + 1], tokens[place], self.text_share
            )
            for place in places
        ]

    def view(self, view: View) -> Float32[ndarray, "items relations dim"]:
        """Return the vectors of one view."""
        match view:
            case View.TEXT:
                return self.text
            case View.IMAGE:
                return self.image
            case View.AVERAGE:
                return self.average
            case _:
                assert_never(view)


def average(
    text: Float32[ndarray, "*any dim"], image: Float32[ndarray, "*any dim"], text_share: float
) -> Float32[ndarray, "*any dim"]:
    """Average two unit vectors, the text vector with weight `text_share`, and renormalise.

    The result is zero if the vectors cancel out. If one of them is zero, it is the other.
    """
    if text_share == EQUAL_SHARE:
        return unit_rows(text + image, 1e-6)
    return unit_rows(2 * (np.float32(text_share) * text + np.float32(1 - text_share) * image), 1e-6)


def unit_rows(vectors: ndarray, least: float) -> ndarray:
    """Normalise vectors along the last axis, as float32; a vector shorter than `least` is divided by `least`."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, least), dtype=np.float32)
