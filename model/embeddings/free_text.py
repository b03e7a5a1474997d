"""Scoring of a free-text relation against item tokens: the network's steps after the towers (eq. 4-6), in NumPy."""

from dataclasses import dataclass
from typing import assert_never

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32, Int64
from numpy import ndarray

from model.similarity import View

from .encoding import EQUAL_SHARE, ItemTokens, TokenRows, average, unit_rows

MIN_LENGTH = 1e-6
"""Minimum length of a token that its relevance is divided by."""

FLOAT32_CHUNK_ITEMS = 1_024
"""Number of items whose tokens are converted to float32 at once."""


@dataclass(frozen=True, eq=False)
class FreeTextBias:
    """Relation bias of a free-text relation: `offset` plus the product of `key` and an item's unit mean token.

    It moves the vector of the item along the unit vector `direction` (`model/network/relation_attention.py`).
    """

    key: Float32[ndarray, " dim"]
    offset: float
    direction: Float32[ndarray, " dim"]


@dataclass(frozen=True, eq=False)
class FreeTextRelation:
    """Free-text relation, prepared for attention over item tokens in the joint space.

    `query` is the scaled W_K^T W_Q h_E, and `output` is W_V^T W_o (eq. 4-6). `nearest` contains the positions of the
    trained relations, except the intra-sample relation. They are sorted by the similarity of their attention to the
    attention of the free-text relation, most similar first. `vector` is h_E, not normalised. `bias` is None if the
    network has no relation bias. `text_share` is the weight of the text vector in the average view. With `unit_tokens`,
    the relevance of a token does not depend on its length.
    """

    description: str
    query: Float32[ndarray, " dim"]
    output: Float32[ndarray, "dim dim"]
    nearest: tuple[int, ...]
    vector: Float32[ndarray, " dim"]
    bias: FreeTextBias | None = None
    text_share: float = EQUAL_SHARE
    unit_tokens: bool = False

    def view(
        self, tokens: ItemTokens, view: View, rows: Int64[ndarray, " taken"]
    ) -> Float32[ndarray, "taken dim"]:
        """Compute the `view` vectors of the items at `rows`, as an index would store them for this relation."""
        parts = [np.empty((0, len(self.query)), np.float32)]
        for start in range(0, len(rows), FLOAT32_CHUNK_ITEMS):
            some = rows[start : start + FLOAT32_CHUNK_ITEMS]
            match view:
                case View.TEXT:
                    vectors = self.vectors(tokens.text.take(some))
                case View.IMAGE:
                    vectors = self.vectors(tokens.image.take(some))
                case View.AVERAGE:
                    text, image = self.vectors(tokens.text.take(some)), self.vectors(tokens.image.take(some))
                    vectors = average(text, image, self.text_share)
                case _:
                    assert_never(view)
            parts.append(vectors)
        return np.concatenate(parts)

    def vectors(self, tokens: TokenRows) -> Float32[ndarray, "items dim"]:
        """Compute z of eq. 4 for every item, as float32 unit vectors; zero for an item without tokens."""
        states = tokens.states.astype(np.float32, copy=False)
        # The summation order of a matrix product depends on the shapes of its operands. With einsum, equal items get
        # equal vectors, regardless of the other items.
        relevance = np.einsum("td,d->t", states, self.query)
        if self.unit_tokens:
            relevance = relevance / np.maximum(np.linalg.norm(states, axis=1), MIN_LENGTH)
        mixed = pooled(states, tokens.starts, relevance).astype(np.float64) @ self.output.astype(np.float64)
        vectors = unit_rows(mixed, 1e-12)
        if self.bias is None:
            return vectors
        total = pooled(states, tokens.starts, np.zeros_like(relevance)).astype(np.float64)
        amount = self.bias.offset + unit_rows(total, 1e-12).astype(np.float64) @ self.bias.key
        amount[np.diff(tokens.starts) == 0] = 0.0
        return unit_rows(vectors + amount[:, None] * self.bias.direction, 1e-12)


def pooled(
    states: Float32[ndarray, "tokens dim"],
    starts: Int64[ndarray, " bounds"],
    relevance: Float32[ndarray, " tokens"],
    shift: bool = True,
) -> Float32[ndarray, "items dim"]:
    """Pool the tokens of each item by their relevance to a relation (A H of eq. 4), up to a positive factor.

    The exponentials are not divided by their sum, because only the direction of the result matters. If `shift` is true,
    the maximum relevance of each item is subtracted before the exponential. If `shift` is false, the relevance must be
    so small that the exponential does not overflow.
    """
    counts = np.diff(starts)
    some = np.flatnonzero(counts)
    if some.size == 0:
        return np.zeros((len(counts), states.shape[1]), np.float32)
    firsts = starts[some]
    if shift:  # per item, so that other items do not affect the result
        relevance = relevance - np.repeat(np.maximum.reduceat(relevance, firsts), counts[some])
    # The matrix has one row per item and one column per token. Its product with the tokens pools items of any length.
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
