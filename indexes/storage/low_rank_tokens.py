"""Low-rank token projections (PCA), which select the candidates that are then scored under a free-text relation.

    tokens/
      text.sketch.npy image.sketch.npy   float32 [tokens, components]: the projections C, in the order of the tokens
      text.basis.npy image.basis.npy     float32 [dim, components]: the principal directions B of the tokens

The tokens H (eq. 3 of the paper) are approximately C B^T, so eq. 4-6 can be evaluated on C: the relevance of a token
is q H^T = (q B) C^T, and pooled projections p map to p B^T (W_V^T W_o) in the joint space. Estimating the scores of all
items this way costs a fraction of reading their tokens. Only the best candidates are then scored exactly from the
tokens. The measurements are in docs/decisions.md.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import assert_never

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from model.embeddings.encoding import TokenRows, unit_rows
from model.embeddings.free_text import MIN_LENGTH, FreeTextRelation, pooled
from model.similarity import View

from .arrays import map_array, read_array, save_array, save_parts

MIN_COMPONENTS = 24
"""Minimum number of components. Tokens of more than 384 dimensions get one component for every 16 dimensions."""

MAX_EXP_RANGE = 80.0
"""Limit for the difference between the greatest and the least relevance of all tokens.

Below the limit, the maximum over all items is subtracted from the relevances before exp. Above the limit, the maximum
of each item is subtracted. Subtracting the maximum over all items could then make all weights of an item zero, because
exp underflows in float32 below about -87.
"""

BASIS_SAMPLE_TOKENS = 20_000
"""Number of tokens sampled to find the principal directions."""

TOKENS_PER_CHUNK = 65_536
"""Number of tokens projected at a time."""


@dataclass(frozen=True)
class LowRankTokens:
    """Low-rank token projections of all items in one modality."""

    states: Float32[ndarray, "tokens components"]
    starts: Int64[ndarray, " bounds"]
    basis: Float32[ndarray, "dim components"]

    @classmethod
    def open(cls, folder: Path, name: str, starts: Int64[ndarray, " bounds"]) -> "LowRankTokens":
        """Open the projections that `write_low_rank_tokens` wrote."""
        states = map_array(folder / f"{name}.sketch.npy", "<f4", 2)
        return cls(states, starts, read_array(folder / f"{name}.basis.npy", "<f4", 2))


@dataclass(frozen=True)
class _Estimated:
    """Estimated vectors of one modality.

    The vector of an item is its row of `inner` times `outer`. It has unit length, or is zero if the item has no tokens.
    """

    inner: Float32[ndarray, "items components"]
    outer: Float32[ndarray, "components dim"]

    @classmethod
    def of(cls, relation: FreeTextRelation, low_rank: LowRankTokens) -> "_Estimated":
        relevance = low_rank.states @ (low_rank.basis.T @ relation.query)
        if relation.unit_tokens:
            relevance /= np.maximum(np.linalg.norm(low_rank.states, axis=1), MIN_LENGTH)
        small = relevance.size == 0 or float(np.ptp(relevance)) < MAX_EXP_RANGE
        if small and relevance.size:
            relevance -= relevance.max()
        inner = pooled(low_rank.states, low_rank.starts, relevance, shift=not small)
        found = cls(inner, low_rank.basis.T @ relation.output).normalised()
        if relation.bias is None:
            return found
        total = pooled(low_rank.states, low_rank.starts, np.zeros_like(relevance))
        mean = unit_rows(
            total, 1e-12
        )  # the basis is orthonormal, so this is the unit mean token in its subspace
        amount = relation.bias.offset + mean @ (low_rank.basis.T @ relation.bias.key)
        amount[np.diff(low_rank.starts) == 0] = 0.0
        inner = np.hstack([found.inner, amount[:, None]]).astype(np.float32)
        return cls(inner, np.vstack([found.outer, relation.bias.direction])).normalised()

    def normalised(self) -> "_Estimated":
        """Return these vectors with unit length."""
        squares = np.einsum("ic,ic->i", self.inner @ (self.outer @ self.outer.T), self.inner)
        return _Estimated(self.inner / np.sqrt(np.maximum(squares, 1e-24))[:, None], self.outer)

    def scores(self, query: Float32[ndarray, " dim"]) -> Float32[ndarray, " items"]:
        # Row by row, because a matrix product would use all processors and wait for them.
        return np.asarray(np.vecdot(self.inner, self.outer @ query), np.float32)


class Estimates:
    """Estimated vectors of all items under one free-text relation, computed on first use."""

    def __init__(self, relation: FreeTextRelation, text: LowRankTokens, image: LowRankTokens) -> None:
        self._relation, self._low_rank = relation, (text, image)

    def scores(self, view: View, query: Float32[ndarray, " dim"]) -> Float32[ndarray, " items"]:
        """Estimate the cosines of all items with a unit query."""
        match view:
            case View.TEXT:
                return self._text.scores(query)
            case View.IMAGE:
                return self._image.scores(query)
            case View.AVERAGE:
                text, image = self._weights
                total = text * self._text.scores(query) + image * self._image.scores(query)
                return np.asarray(total / self._length, np.float32)
            case _:
                assert_never(view)

    # Two threads may compute a property at the same time. Both get the same result.

    @cached_property
    def _text(self) -> _Estimated:
        return _Estimated.of(self._relation, self._low_rank[0])

    @cached_property
    def _image(self) -> _Estimated:
        return _Estimated.of(self._relation, self._low_rank[1])

    @cached_property
    def _length(self) -> Float32[ndarray, " items"]:
        """Length of the weighted sum of the text vector and the image vector of each item."""
        both = np.einsum(
            "ic,ic->i", self._text.inner @ (self._text.outer @ self._image.outer.T), self._image.inner
        )
        text, image = self._weights
        there = [np.any(part.inner, axis=1).astype(np.float32) for part in (self._text, self._image)]
        squares = text**2 * there[0] + image**2 * there[1] + 2 * text * image * both
        return np.asarray(np.sqrt(np.maximum(squares, 1e-12)), np.float32)

    @property
    def _weights(self) -> tuple[float, float]:
        """Weights of the text vector and the image vector in the average view; both are 1 if they are equal."""
        return 2 * self._relation.text_share, 2 * (1 - self._relation.text_share)


def write_low_rank_tokens(folder: Path, name: str, tokens: TokenRows) -> None:
    """Write the low-rank projections of `tokens`, which are stored in `folder` under the same `name`."""
    count, dim = tokens.states.shape
    drawn = np.sort(np.random.default_rng(0).permutation(count)[:BASIS_SAMPLE_TOKENS])
    sample = np.asarray(tokens.states[drawn], np.float64)
    basis = np.linalg.eigh(sample.T @ sample)[1][:, ::-1][
        :, : min(max(MIN_COMPONENTS, dim // 16), dim)
    ].astype(np.float32)
    save_array(folder / f"{name}.basis.npy", np.ascontiguousarray(basis))
    starts = range(0, count, TOKENS_PER_CHUNK)
    parts = (tokens.states[start : start + TOKENS_PER_CHUNK].astype(np.float32) @ basis for start in starts)
    save_parts(folder / f"{name}.sketch.npy", (count, basis.shape[1]), "<f4", parts)
