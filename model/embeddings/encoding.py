"""What encoding items yields, and what a thing that encodes them must offer; free of torch.

`model.encoder.encoder.Encoder` is the one that exists. `indexes` builds from any, and the service puts new texts
to any, so both are tested with an encoder that needs no network.

A relation that nobody indexed is put to the tokens of items (`TokenRows`) by a `WordedRelation`: what the network
does after its towers, in NumPy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Float32, Int64
from numpy import ndarray

from model.records import Relation, View

from .attention_map import Attention

if TYPE_CHECKING:
    from PIL.Image import Image


CHUNK = 1_024
"""Items whose tokens are widened to single precision together."""


@dataclass(frozen=True)
class TokenRows:
    """H of eq. 3 for some items, one after another, without padding: of item i, rows `starts[i]` to `starts[i + 1]`.

    An item may have none: that of a picture that it lacks.
    """

    states: Float[ndarray, "tokens dim"]
    starts: Int64[ndarray, " bounds"]

    def __len__(self) -> int:
        """Number of items."""
        return len(self.starts) - 1

    def take(self, rows: Int64[ndarray, " taken"]) -> "TokenRows":
        """The tokens of the items at `rows`, in that order; copied, so that those of a mapped file are read once."""
        firsts = self.starts[rows]
        counts = self.starts[rows + 1] - firsts
        starts = np.append(0, np.cumsum(counts))
        places = np.arange(starts[-1]) + np.repeat(firsts - starts[:-1], counts)
        return TokenRows(np.asarray(self.states[places]), starts)

    @classmethod
    def joined(cls, parts: Sequence["TokenRows"]) -> "TokenRows":
        """The items of one part after those of the other."""
        ends = np.cumsum([0, *(len(part.states) for part in parts)])
        starts = [part.starts[:-1] + end for part, end in zip(parts, ends[:-1], strict=True)]
        return cls(np.concatenate([part.states for part in parts]), np.concatenate([*starts, ends[-1:]]))


@dataclass(frozen=True)
class ItemTokens:
    """The tokens of some items, in either modality."""

    text: TokenRows
    image: TokenRows

    def take(self, rows: Int64[ndarray, " taken"]) -> "ItemTokens":
        """The tokens of the items at `rows`, in that order."""
        return ItemTokens(self.text.take(rows), self.image.take(rows))

    @classmethod
    def joined(cls, parts: Sequence["ItemTokens"]) -> "ItemTokens":
        """The items of one part after those of the other."""
        return cls(
            TokenRows.joined([part.text for part in parts]), TokenRows.joined([part.image for part in parts])
        )


@dataclass(frozen=True)
class Encoding:
    """Unit vectors of some items under every relation, one set for each modality.

    The vector of what an item lacks, of picture and words, is zero. `tokens` are there if they were asked for.
    """

    text: Float32[ndarray, "items relations dim"]
    image: Float32[ndarray, "items relations dim"]
    tokens: ItemTokens | None = None

    @property
    def average(self) -> Float32[ndarray, "items relations dim"]:
        """The mean of the two unit vectors, renormalised; zero where the two cancel out."""
        return average(self.text, self.image)

    def without_text(self) -> "Encoding":
        """The same, of pictures alone: whatever stood for their words is gone."""
        tokens = self.tokens
        if tokens is not None:
            none = TokenRows(tokens.text.states[:0], np.zeros_like(tokens.text.starts))
            tokens = ItemTokens(none, tokens.image)
        return Encoding(np.zeros_like(self.text), self.image, tokens)

    def split(self) -> list["Encoding"]:
        """The encodings of its items, one by one."""
        places = range(len(self.text))
        tokens = [None if self.tokens is None else self.tokens.take(np.asarray([place])) for place in places]
        return [
            Encoding(self.text[place : place + 1], self.image[place : place + 1], tokens[place])
            for place in places
        ]

    def view(self, view: View) -> Float32[ndarray, "items relations dim"]:
        """The vectors of one view."""
        if view is View.AVERAGE:
            return self.average
        return self.text if view is View.TEXT else self.image


def average(text: Float32[ndarray, "*any dim"], image: Float32[ndarray, "*any dim"]) -> ndarray:
    """The mean of two unit vectors, renormalised; zero where the two cancel out."""
    return _unit(text + image, 1e-6)


@dataclass(frozen=True, eq=False)
class WordedRelation:
    """A relation in words, whether or not it was ever trained on, as it looks at tokens in the joint space.

    `query` is W_K^T W_Q h_E, scaled, and `output` is W_V^T W_o (eq. 4-6). `nearest` lists the positions of the
    relations that were trained on, the one that looks at tokens most alike first; the intra-sample one is not
    among them. `vector` is h_E itself, not normalised.
    """

    description: str
    query: Float32[ndarray, " dim"]
    output: Float32[ndarray, "dim dim"]
    nearest: tuple[int, ...]
    vector: Float32[ndarray, " dim"]

    def view(
        self, tokens: ItemTokens, view: View, rows: Int64[ndarray, " taken"]
    ) -> Float32[ndarray, "taken dim"]:
        """The vectors of a view of the items at `rows`: what an index would hold under this relation."""
        parts = [np.empty((0, len(self.query)), np.float32)]
        for start in range(0, len(rows), CHUNK):
            some = rows[start : start + CHUNK]
            text, image = (
                None if view is other else self.vectors(one.take(some))
                for one, other in ((tokens.text, View.IMAGE), (tokens.image, View.TEXT))
            )
            if text is not None and image is not None:
                parts.append(average(text, image))
            else:
                parts += [one for one in (text, image) if one is not None]
        return np.concatenate(parts)

    def vectors(self, tokens: TokenRows) -> Float32[ndarray, "items dim"]:
        """z of eq. 4 for every item, unit length, float32; zero where an item has no tokens."""
        states = tokens.states.astype(np.float32, copy=False)
        # Summed as in no product of matrices, whose order of summing depends on their shapes: equal items are to have
        # equal vectors, in whatever company.
        relevance = np.einsum("td,d->t", states, self.query)
        mixed = pooled(states, tokens.starts, relevance).astype(np.float64) @ self.output.astype(np.float64)
        return _unit(mixed, 1e-12)


def pooled(
    states: Float32[ndarray, "tokens dim"],
    starts: Int64[ndarray, " bounds"],
    relevance: Float32[ndarray, " tokens"],
    shift: bool = True,
) -> Float32[ndarray, "items dim"]:
    """The tokens of each item, pooled by their relevance to a relation (A H of eq. 4), but for a factor.

    What the softmax would divide by is left out, since only the direction counts in the end. Without `shift` the
    relevance must be small enough to be raised to e as it is.
    """
    counts = np.diff(starts)
    some = np.flatnonzero(counts)
    if some.size == 0:
        return np.zeros((len(counts), states.shape[1]), np.float32)
    firsts = starts[some]
    if shift:  # by the greatest of each item, whatever stands beside it
        relevance = relevance - np.repeat(np.maximum.reduceat(relevance, firsts), counts[some])
    # One row an item, one column a token: a product of this with the tokens pools items of any length.
    pooling = sp.csr_array(
        (np.exp(relevance), np.arange(len(states), dtype=np.int32), np.append(firsts, len(states))),
        shape=(some.size, len(states)),
    )
    mixed: ndarray = pooling @ states
    if some.size == len(counts):
        return mixed
    found = np.zeros((len(counts), states.shape[1]), np.float32)
    found[some] = mixed
    return found


def _unit(vectors: ndarray, least: float) -> ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, least), dtype=np.float32)


class ItemEncoder(Protocol):
    """A trained network, ready to encode items under the relations it was trained on."""

    @property
    def relations(self) -> tuple[Relation, ...]:
        """The relations of the second axis of everything encoded, the intra-sample one first."""

    @property
    def dim(self) -> int:
        """Length of every vector."""

    @property
    def device(self) -> str:
        """Where it computes, in words."""

    def read_items(
        self, texts: Sequence[str], pictures: Sequence["Image | None"], tokens: bool = False
    ) -> Callable[[], Encoding]:
        """Tokenize and decode items, in any thread; what is returned has the network encode them.

        An item without a picture has None. With `tokens`, those are kept as well.
        """

    def encode_texts(self, texts: Sequence[str]) -> Float32[ndarray, "texts relations dim"]:
        """Encode texts that have no picture; unit rows."""

    def read_relation(self, description: str) -> WordedRelation:
        """A relation in words, ready to be put to tokens."""

    def text_tokens(self, texts: Sequence[str]) -> TokenRows:
        """The tokens of texts."""

    def explain(self, text: str | None, picture: "Image | None", relation: str | WordedRelation) -> Attention:
        """What a relation, by its id or in words, looks at in an item, of which either part may be missing.

        Raises:
            UnknownRelationError: no relation has this id.
        """
