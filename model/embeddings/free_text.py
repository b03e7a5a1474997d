"""A free-text relation scored against item tokens: what the network does after its towers (eq. 4-6), in NumPy."""

from dataclasses import dataclass
from typing import assert_never

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32, Int64
from numpy import ndarray

from model.similarity import View

from .encoding import ItemTokens, TokenRows, average, unit_rows

FLOAT32_CHUNK_ITEMS = 1_024
"""Items whose tokens are widened to single precision together."""


@dataclass(frozen=True, eq=False)
class FreeTextRelation:
    """A free-text relation, which need not have been trained on, as it attends to tokens in the joint space.

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
        """Compute the vectors of a view of the items at `rows`: what an index would hold under this relation."""
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
                    vectors = average(text, image)
                case _:
                    assert_never(view)
            parts.append(vectors)
        return np.concatenate(parts)

    def vectors(self, tokens: TokenRows) -> Float32[ndarray, "items dim"]:
        """Compute z of eq. 4 for every item: unit length, float32; zero where an item has no tokens."""
        states = tokens.states.astype(np.float32, copy=False)
        # Summed as in no product of matrices, whose order of summing depends on their shapes: equal items are to have
        # equal vectors, in whatever company.
        relevance = np.einsum("td,d->t", states, self.query)
        mixed = pooled(states, tokens.starts, relevance).astype(np.float64) @ self.output.astype(np.float64)
        return unit_rows(mixed, 1e-12)


def pooled(
    states: Float32[ndarray, "tokens dim"],
    starts: Int64[ndarray, " bounds"],
    relevance: Float32[ndarray, " tokens"],
    shift: bool = True,
) -> Float32[ndarray, "items dim"]:
    """Pool the tokens of each item by their relevance to a relation (A H of eq. 4), but for a factor.

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
