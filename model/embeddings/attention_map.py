"""Attention weights of the words of a text and the patches of a picture; free of torch.

An encoder gives one for an item and a relation (`ItemEncoder.explain`), and the service answers with it. The weights
are A of eq. 4, by which the network pools the tokens of the item: not an estimate of what mattered, but what was
done. All tokens of a modality share a weight of 1, and those that stand for no word or patch keep theirs (`summary`).
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float32
from numpy import ndarray

Span = tuple[int, int]
"""Characters of a text, from the first to before the second."""


@dataclass(frozen=True, slots=True)
class TokenWeight:
    """A word, or the part of it that was read before the text was cut: `text[start:end]` of the text as given."""

    text: str
    start: int
    end: int
    weight: float


@dataclass(frozen=True, slots=True)
class TextWeights:
    """The words of a text in their order, and the `summary`: what begins, ends, sums up or parts them."""

    words: tuple[TokenWeight, ...]
    summary: float


@dataclass(frozen=True, slots=True)
class Box:
    """A part of a picture, in shares of its width and height; past 0 or 1 where the picture was padded."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, eq=False, slots=True)
class PatchWeights:
    """The patches of a picture, row by row from its top left, and the `summary`: the tokens that are no patch.

    `box` is the part of the picture that the patches cover: an image processor may crop.
    """

    grid: Float32[ndarray, "rows columns"]
    summary: float
    box: Box


@dataclass(frozen=True, eq=False, slots=True)
class Attention:
    """Attention of a relation over an item's text and picture; None for a part that the item lacks."""

    text: TextWeights | None
    image: PatchWeights | None


def weigh_words(text: str, spans: Sequence[Span], weights: Sequence[float]) -> TextWeights:
    """Sum up the weights of tokens, each of which stands for a span of `text`, by the words that they make up.

    A tokenizer may split a word, even a character; tokens that touch within a word are one again. Numbers are words,
    and so is a run of punctuation or emoji; ideographs, which no space parts, stay as the tokenizer has them. A token
    of no characters, or of spaces alone, counts as summary.
    """
    words: list[TokenWeight] = []
    summary = 0.0
    for span, weight in zip(spans, weights, strict=True):
        start, end = _trimmed(text, span)
        if start == end:
            summary += weight
        elif words and _one_word(text, words[-1].end, start):
            last = words[-1]
            end = max(last.end, end)
            words[-1] = TokenWeight(text[last.start : end], last.start, end, last.weight + weight)
        else:
            words.append(TokenWeight(text[start:end], start, end, weight))
    return TextWeights(tuple(words), summary)


def _trimmed(text: str, span: Span) -> Span:
    """Without spaces around it, and with the accents of its last letter, which a tokenizer may have composed."""
    start, end = span
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    while start < end < len(text) and unicodedata.category(text[end])[0] == "M":
        end += 1
    return start, end


def _one_word(text: str, end: int, start: int) -> bool:
    """Whether a token that starts at `start` goes on with the word that ends at `end`."""
    if start != end:
        return start < end  # two tokens of one character
    before, after = _kind(text[end - 1]), _kind(text[start])
    return before == after != "ideograph"


def _kind(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Lo" and unicodedata.east_asian_width(character) == "W":
        return "ideograph"
    return "letter" if category[0] in "LMN" else "sign"
