"""Synthetic item tokens for benchmarks of free-text relations, which resemble the tokens of a trained network.

Every item belongs to a theme. Its text is a sequence of words, most of them from the vocabulary of the theme. Its
picture consists of a few objects, again mostly from the theme, each of which covers several patches. A token is the sum
of a mean token, a word or object, the theme, and noise. All of them have a decaying spectrum, as in the demo: 24 of 128
components contain 0.98 of the squared length of its tokens.

A relation prefers some words and objects to others: the logits of the tokens of an item vary with a standard deviation
of `logit_sd`. It is 4 to 7 in the demo, which is trained from scratch, and 0.3 or 0.75 in networks with pretrained
towers before training.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from model.embeddings.encoding import ItemTokens, TokenRows
from model.embeddings.free_text import FreeTextRelation
from model.worker_pools import ahead, available_cores

ITEMS_PER_CHUNK = 4_096
"""Number of items generated at a time. The first items do not depend on how many are requested."""

THEMES = 2_000
CONCEPTS = 8_000
"""Number of words, and of objects."""

CONCEPTS_PER_THEME = 40
OWN_CONCEPTS = 0.8
"""Share of the words and objects of an item that come from the list of its theme."""

OBJECTS = 5
"""Number of objects in a picture."""

NOISES = 8_192
"""Number of different noise vectors. More would only make the benchmark slower."""

TOKEN_LENGTH = 10.0
"""Length of a typical word or object."""


@dataclass(frozen=True)
class Lengths:
    """Least and greatest number of words of a text, and the number of patches of a picture."""

    words: tuple[int, int] = (6, 14)
    patches: int = 10


class SyntheticTokens:
    """Tokens of items, and relations that attend to them."""

    def __init__(self, dim: int, lengths: Lengths, logit_sd: float) -> None:
        draw = np.random.default_rng(0)
        self._dim, self._lengths, self._logit_sd = dim, lengths, logit_sd
        self._deviations = ((2 + np.arange(dim)) ** -1.0).astype(np.float32)
        self._deviations *= TOKEN_LENGTH / np.linalg.norm(self._deviations)
        self._rotation = np.linalg.qr(draw.standard_normal((dim, dim)))[0].astype(np.float32)
        # A mean token, which all tokens share, and a word or an object.
        self._concepts = [self._drawn(draw, CONCEPTS) + 0.8 * self._drawn(draw, 1) for _ in range(2)]
        self._themes = 0.5 * self._drawn(draw, THEMES)
        self._noise = 0.4 * self._drawn(draw, NOISES)
        self._theme_concepts = draw.integers(0, CONCEPTS, (2, THEMES, CONCEPTS_PER_THEME))
        self._output = np.linalg.qr(draw.standard_normal((dim, dim)))[0].astype(np.float32)

    def chunks(self, items: int) -> Iterator[ItemTokens]:
        """Yield the tokens of the first `items` items, which all cores generate."""

        def chunk(start: int) -> ItemTokens:
            return self._chunk(start // ITEMS_PER_CHUNK, min(ITEMS_PER_CHUNK, items - start))

        with ThreadPoolExecutor(available_cores()) as pool:
            for _, some in ahead(pool, chunk, range(0, items, ITEMS_PER_CHUNK), available_cores()):
                yield some

    def relation(self, number: int) -> FreeTextRelation:
        """Return the relation with this number; relations are independent of one another."""
        draw = np.random.default_rng([1, number])
        query = (draw.standard_normal(self._dim) * self._deviations) @ self._rotation.T
        logits = self._concepts[0] @ query
        query *= self._logit_sd / logits.std()
        name = f"relation {number}"
        return FreeTextRelation(
            name, query.astype(np.float32), self._output, (), np.zeros(self._dim, np.float32)
        )

    def _chunk(self, number: int, items: int) -> ItemTokens:
        draw = np.random.default_rng([2, number])
        # Themes have very unequal sizes.
        themes = (THEMES * draw.random(ITEMS_PER_CHUNK) ** 2).astype(np.int64)
        least, greatest = self._lengths.words
        words = draw.integers(least, greatest + 1, ITEMS_PER_CHUNK)
        patches = np.full(ITEMS_PER_CHUNK, self._lengths.patches)
        text = self._tokens(0, themes, words, self._chosen(draw, 0, np.repeat(themes, words)), draw)
        objects = self._chosen(draw, 1, np.repeat(themes, OBJECTS)).reshape(ITEMS_PER_CHUNK, OBJECTS)
        seen = draw.integers(0, OBJECTS, (ITEMS_PER_CHUNK, self._lengths.patches))
        image = self._tokens(1, themes, patches, np.take_along_axis(objects, seen, 1).ravel(), draw)
        return ItemTokens(_first(text, items), _first(image, items))

    def _chosen(
        self, draw: np.random.Generator, modality: int, themes: Int64[ndarray, " n"]
    ) -> Int64[ndarray, " n"]:
        own = self._theme_concepts[modality, themes, draw.integers(0, CONCEPTS_PER_THEME, len(themes))]
        return np.where(draw.random(len(themes)) < OWN_CONCEPTS, own, draw.integers(0, CONCEPTS, len(themes)))

    def _tokens(
        self,
        modality: int,
        themes: Int64[ndarray, " items"],
        counts: Int64[ndarray, " items"],
        concepts: Int64[ndarray, " tokens"],
        draw: np.random.Generator,
    ) -> TokenRows:
        states = self._concepts[modality][concepts]
        states += self._themes[np.repeat(themes, counts)]
        states += self._noise[draw.integers(0, NOISES, len(concepts))]
        return TokenRows(states.astype(np.float16), np.append(0, np.cumsum(counts)))

    def _drawn(self, draw: np.random.Generator, count: int) -> Float32[ndarray, "count dim"]:
        drawn: ndarray = draw.standard_normal((count, self._dim), dtype=np.float32) * self._deviations
        return drawn @ self._rotation.T


def _first(tokens: TokenRows, items: int) -> TokenRows:
    starts = tokens.starts[: items + 1]
    return TokenRows(tokens.states[: starts[-1]], starts)
