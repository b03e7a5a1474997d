"""Attention weights of the words of a text and the patches of a picture, without torch.

`ItemEncoder.explain` computes them for an item and a relation, and the service returns them. The weights are A of
eq. 5, which the network uses to pool the tokens of the item, so they are exact and not an estimate of importance.
The weights of all tokens of a modality sum to 1. `summary` is the total weight of the tokens that represent no word or
patch.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float32
from numpy import ndarray

Span = tuple[int, int]
"""Character span of a text: start (inclusive) and end (exclusive)."""


@dataclass(frozen=True, slots=True)
class TokenWeight:
    """Weight of one word, which is `text[start:end]` of the input text.

    If the tokenizer truncated the input within a word, the word ends at the cut.
    """

    text: str
    start: int
    end: int
    weight: float


@dataclass(frozen=True, slots=True)
class TextWeights:
    """Weights of the words of a text in order, and `summary`: the total weight of special tokens and whitespace."""

    words: tuple[TokenWeight, ...]
    summary: float


@dataclass(frozen=True, slots=True)
class Box:
    """Part of a picture, with its edges as fractions of the picture's width and height.

    If the picture was padded, some edges are below 0 or above 1.
    """

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, eq=False, slots=True)
class PatchWeights:
    """Weights of the patches of a picture, row by row from the top left, and `summary`: the weight of all other tokens.

    `box` is the part of the picture that the patches cover, because an image processor may crop the picture.
    """

    grid: Float32[ndarray, "rows columns"]
    summary: float
    box: Box


@dataclass(frozen=True, eq=False, slots=True)
class Attention:
    """Attention of a relation over an item's text and picture; None for a missing text or picture."""

    text: TextWeights | None
    image: PatchWeights | None


def weigh_words(text: str, spans: Sequence[Span], weights: Sequence[float]) -> TextWeights:
    """Sum the weights of the tokens of each word; `spans` contains the span in `text` of each token.

    A tokenizer may split a word, or even a character, into several tokens. Adjacent tokens within a word are merged.
    A number counts as a word, and so does a run of punctuation or emoji. Ideographs have no spaces between them, so
    they stay as the tokenizer split them. A token with no characters, or with only whitespace, counts towards
    `summary`.
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
    """Return the span without surrounding whitespace, extended by the combining marks of its last letter.

    A tokenizer that composes a letter with its marks may report a span without the marks.
    """
    start, end = span
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    while start < end < len(text) and unicodedata.category(text[end])[0] == "M":
        end += 1
    return start, end


def _one_word(text: str, end: int, start: int) -> bool:
    """Return whether a token that starts at `start` continues the word that ends at `end`."""
    if start != end:
        return start < end  # overlapping spans: two tokens of the same character
    before, after = _kind(text[end - 1]), _kind(text[start])
    return before == after != "ideograph"


def _kind(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Lo" and unicodedata.east_asian_width(character) == "W":
        return "ideograph"
    return "letter" if category[0] in "LMN" else "sign"
