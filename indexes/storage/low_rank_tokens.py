"""Low-rank projections (PCA) of tokens: enough to estimate which items are worth scoring under a free-text relation.

    tokens/
      text.sketch.npy image.sketch.npy   float32 [tokens, components], rows as in the tokens themselves
      text.basis.npy image.basis.npy     float32 [dim, components]: the principal directions B of the tokens

With H = C B^T, nearly, all of eq. 4-6 can be had from C: the relevance of a token is q H^T = (q B) C^T, and what the
pooled tokens become in the joint space is p B^T (W_V^T W_o). So all items are estimated at a fraction of the cost of
reading their tokens; what is worth it is then scored from the tokens. Measured in docs/decisions.md.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import assert_never

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from model.embeddings.encoding import TokenRows
from model.embeddings.free_text import FreeTextRelation, pooled
from model.similarity import View

from .arrays import map_array, read_array, save_array, save_parts

MIN_COMPONENTS = 24
"""Least number of components; there is one for every 16 of the tokens' own, if that is more."""

MAX_EXP_RANGE = 80.0
"""Range of relevances within which one common maximum is subtracted before exp: float32 goes down to e^-87."""

BASIS_SAMPLE_TOKENS = 20_000
"""Tokens drawn to find the principal directions."""

TOKENS_PER_CHUNK = 65_536
"""Tokens projected at a time."""


@dataclass(frozen=True)
class LowRankTokens:
    """The projected tokens of all items in one modality."""

    states: Float32[ndarray, "tokens components"]
    starts: Int64[ndarray, " bounds"]
    basis: Float32[ndarray, "dim components"]

    @classmethod
    def open(cls, folder: Path, name: str, starts: Int64[ndarray, " bounds"]) -> "LowRankTokens":
        """Map what `write_low_rank_tokens` wrote into memory."""
        states = map_array(folder / f"{name}.sketch.npy")
        return cls(states, starts, read_array(folder / f"{name}.basis.npy"))


@dataclass(frozen=True)
class _Estimated:
    """Estimated vectors of one modality: a row of `inner` times `outer` is an item's; unit, or zero without tokens."""

    inner: Float32[ndarray, "items components"]
    outer: Float32[ndarray, "components dim"]

    @classmethod
    def of(cls, relation: FreeTextRelation, low_rank: LowRankTokens) -> "_Estimated":
        relevance = low_rank.states @ (low_rank.basis.T @ relation.query)
        small = relevance.size == 0 or float(np.ptp(relevance)) < MAX_EXP_RANGE
        if small and relevance.size:
            relevance -= relevance.max()
        inner = pooled(low_rank.states, low_rank.starts, relevance, shift=not small)
        outer = low_rank.basis.T @ relation.output
        squares = np.einsum("ic,ic->i", inner @ (outer @ outer.T), inner)
        return cls(inner / np.sqrt(np.maximum(squares, 1e-24))[:, None], outer)

    def scores(self, query: Float32[ndarray, " dim"]) -> Float32[ndarray, " items"]:
        # Row by row: a product would take all processors, and wait for them.
        return np.asarray(np.vecdot(self.inner, self.outer @ query), np.float32)


class Estimates:
    """Estimated vectors of all items under one free-text relation; made when first needed."""

    def __init__(self, relation: FreeTextRelation, text: LowRankTokens, image: LowRankTokens) -> None:
        self._relation, self._low_rank = relation, (text, image)

    def scores(self, view: View, query: Float32[ndarray, " dim"]) -> Float32[ndarray, " items"]:
        """Estimate the cosines with a unit query."""
        match view:
            case View.TEXT:
                return self._text.scores(query)
            case View.IMAGE:
                return self._image.scores(query)
            case View.AVERAGE:
                total = self._text.scores(query) + self._image.scores(query)
                return np.asarray(total / self._length, np.float32)
            case _:
                assert_never(view)

    # Two threads may both make one of these: they make the same.

    @cached_property
    def _text(self) -> _Estimated:
        return _Estimated.of(self._relation, self._low_rank[0])

    @cached_property
    def _image(self) -> _Estimated:
        return _Estimated.of(self._relation, self._low_rank[1])

    @cached_property
    def _length(self) -> Float32[ndarray, " items"]:
        """Of the sum of both vectors."""
        both = np.einsum(
            "ic,ic->i", self._text.inner @ (self._text.outer @ self._image.outer.T), self._image.inner
        )
        there = sum(np.any(part.inner, axis=1).astype(np.float32) for part in (self._text, self._image))
        return np.asarray(np.sqrt(np.maximum(there + 2 * both, 1e-12)), np.float32)


def write_low_rank_tokens(folder: Path, name: str, tokens: TokenRows) -> None:
    """Write the projections of `tokens`, which lie in `folder` under the same name."""
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
