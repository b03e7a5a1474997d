"""Estimated vectors of all items under one free-text relation, in one view, from low-rank tokens.

The vectors do not depend on the query, so `TokenStore` keeps those that were used last. They are computed in parts,
whose arrays stay in the processor's cache, by a thread for each core.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import assert_never

import numpy as np
from jaxtyping import Bool, Float32, UInt16
from numpy import ndarray

from indexes.vectors.bfloat_vectors import BfloatVectors, bfloat16, inner_products, padded_width
from indexes.vectors.contract import Neighbours
from model.embeddings.encoding import unit_rows
from model.embeddings.free_text import FreeTextRelation, pooled
from model.similarity import View
from model.worker_pools import available_cores

from .low_rank_tokens import LowRankTokens

TOKENS_PER_PART = 131_072
"""Number of tokens of a modality, on average, that one thread reads at a time.

Besides its tokens, a part takes 0.13 ms in which the thread holds the interpreter: small parts keep others waiting.
"""

MAX_THREADS = 16
"""Maximum number of threads that estimate at once."""

MAX_PRODUCT = 2**18
"""Maximum number of multiplications in a product of matrices that OpenBLAS computes in the calling thread."""

MAX_EXP_RANGE = 80.0
"""Limit for the difference between the greatest and the least relevance in a part.

Below the limit, the maximum over the part is subtracted from the relevances before exp. Above the limit, the maximum of
each item is subtracted. Subtracting the maximum over the part could then make all weights of an item zero, because exp
underflows in float32 below about -87.
"""


@dataclass(frozen=True)
class _Modality:
    """Estimator for one modality.

    The estimated vector of an item is its row of `inner` times `outer`. It has unit length, or is zero if the item has
    no tokens.
    """

    relation: FreeTextRelation
    tokens: LowRankTokens
    outer: Float32[ndarray, "components dim"]
    gram: Float32[ndarray, "components components"]
    query: Float32[ndarray, " components"]

    @classmethod
    def of(cls, relation: FreeTextRelation, tokens: LowRankTokens) -> "_Modality":
        basis = tokens.scale[:, None] * tokens.basis.T
        outer = basis @ relation.output
        if relation.bias is not None:
            outer = np.vstack([outer, relation.bias.direction])
        return cls(relation, tokens, outer, outer @ outer.T, basis @ relation.query)

    def inner(self, first: int, last: int) -> Float32[ndarray, "items components"]:
        """Return the rows of `inner` of the items from `first` to `last` (exclusive)."""
        tokens, bias = self.tokens, self.relation.bias
        starts = tokens.starts[first : last + 1] - tokens.starts[first]
        states = tokens.states(first, last)
        relevance = inner_products(states, self.query)
        if self.relation.unit_tokens:
            relevance /= tokens.divisors(first, last, states)
        small = relevance.size == 0 or float(np.ptp(relevance)) < MAX_EXP_RANGE
        if small and relevance.size:
            relevance -= relevance.max()
        inner = self._unit(pooled(states, starts, relevance, shift=not small))
        if bias is None:
            return inner
        # The basis is orthonormal, so this is the unit mean token in its subspace.
        mean = unit_rows(pooled(states, starts, np.zeros_like(relevance), shift=False) * tokens.scale, 1e-12)
        amount = bias.offset + inner_products(mean, tokens.basis.T @ bias.key)
        amount[np.diff(starts) == 0] = 0.0
        return self._unit(np.hstack([inner, amount[:, None]]).astype(np.float32))

    def _unit(self, inner: Float32[ndarray, "items some"]) -> Float32[ndarray, "items some"]:
        """Scale rows to vectors of unit length; rows without the component of the bias have fewer components."""
        gram = self.gram[: inner.shape[1], : inner.shape[1]]
        squares = np.einsum("ic,ic->i", product(inner, gram), inner)
        unit: ndarray = inner / np.sqrt(np.maximum(squares, 1e-24))[:, None]
        return unit


class Estimates:
    """Estimated vectors of all items in one view, under one free-text relation."""

    def __init__(
        self, relation: FreeTextRelation, view: View, text: LowRankTokens, image: LowRankTokens
    ) -> None:
        """Prepare the estimates; the first call of `best` computes the vectors."""
        self._weights = (2 * relation.text_share, 2 * (1 - relation.text_share))
        match view:
            case View.TEXT:
                self._parts = [_Modality.of(relation, text)]
            case View.IMAGE:
                self._parts = [_Modality.of(relation, image)]
            case View.AVERAGE:
                self._parts = [_Modality.of(relation, one) for one in (text, image)]
            case _:
                assert_never(view)
        self._outer = np.vstack([part.outer for part in self._parts])
        self._cross = self._parts[0].outer @ self._parts[-1].outer.T
        self._shape = len(text), len(self._outer)
        self._lock = Lock()
        self._computed: BfloatVectors | None = None

    @property
    def nbytes(self) -> int:
        """Size of the vectors in memory, in bytes."""
        items, dim = self._shape
        return 2 * items * padded_width(dim)

    def best(
        self, query: Float32[ndarray, " dim"], k: int, allowed: Bool[ndarray, " items"] | None = None
    ) -> Neighbours:
        """Return the `k` items with the greatest estimated cosines with a unit `query`, best first.

        If `allowed` is given, only items at whose rows it is true are returned. If two threads make the first call at
        once, the second one waits for the first.
        """
        with self._lock:
            if self._computed is None:
                self._computed = self._vectors()
        return self._computed.nearest(inner_products(self._outer, query), k, allowed)

    def _vectors(self) -> BfloatVectors:
        items, dim = self._shape
        vectors = BfloatVectors(items, dim)
        tokens = max(len(part.tokens.codes) for part in self._parts)
        step = max(1, TOKENS_PER_PART * items // max(tokens, 1))

        def fill(first: int) -> None:
            last = min(first + step, items)
            vectors.rows[first:last, :dim] = self._rows(first, last)

        with ThreadPoolExecutor(min(available_cores(), MAX_THREADS)) as pool:
            list(pool.map(fill, range(0, items, step)))
        return vectors

    def _rows(self, first: int, last: int) -> UInt16[ndarray, "items width"]:
        inner = [part.inner(first, last) for part in self._parts]
        if len(inner) == 1:
            return bfloat16(inner[0])
        # The average view is the weighted sum of the two vectors, divided by its length.
        text, image = self._weights
        both = np.einsum("ic,ic->i", product(inner[0], self._cross), inner[1])
        there = [np.any(one, axis=1) for one in inner]
        squares = text**2 * there[0] + image**2 * there[1] + 2 * text * image * both
        length = np.sqrt(np.maximum(squares, 1e-12)).astype(np.float32)[:, None]
        return bfloat16(np.hstack([inner[0] * (text / length), inner[1] * (image / length)]))


def product(
    rows: Float32[ndarray, "rows some"], matrix: Float32[ndarray, "some others"]
) -> Float32[ndarray, "rows others"]:
    """Multiply `rows` by a small `matrix` in the calling thread."""
    found = np.empty((len(rows), matrix.shape[1]), np.float32)
    step = max(1, MAX_PRODUCT // matrix.size)
    for start in range(0, len(rows), step):
        np.matmul(rows[start : start + step], matrix, out=found[start : start + step])
    return found
