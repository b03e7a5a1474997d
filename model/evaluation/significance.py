"""Significance of the differences between systems that answered the same cases (queries, edges or claims).

The cases of one item are not independent, so whole items are resampled and tested. The bootstrap interval of a mean is
in `metrics.py`.
"""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

DRAWS = 10_000
"""Number of random sign flips; the smallest possible p is 1 / (DRAWS + 1)."""

MAX_BLOCK_SIGNS = 1 << 24
"""Maximum number of signs that are drawn at a time."""


def sign_flip_p(
    differences: Float[ndarray, "cases rivals"],
    cluster: Int[ndarray, " cases"],
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Float[ndarray, " rivals"]:
    """Compute the two-sided p of the mean of paired differences from random sign flips of whole clusters.

    If the two systems are equally good, the difference of each cluster is as likely to be negative as positive. p is
    the share of draws whose mean is at least as far from 0 as the observed one, with the observed one counted as a draw
    (Phipson & Smyth 2010). All rivals are tested with the same flips.
    """
    _, index = np.unique(cluster, return_inverse=True)
    totals = np.stack([np.bincount(index, weights=column) for column in differences.T], axis=1)
    observed = np.abs(totals.sum(axis=0))
    bound = observed - 1e-9 * np.abs(totals).sum(axis=0)  # rounding must not separate equal sums
    extreme = np.zeros(len(observed), dtype=np.int64)
    block = max(1, MAX_BLOCK_SIGNS // len(totals))
    for start in range(0, draws, block):
        size = min(block, draws - start)
        bits = np.unpackbits(np.frombuffer(rng.bytes((size * len(totals) + 7) // 8), dtype=np.uint8))
        # A sum of random signs is twice the sum of the chosen values minus the sum of all values.
        chosen = bits[: size * len(totals)].reshape(size, -1).astype(np.float64) @ totals
        extreme += (np.abs(2 * chosen - totals.sum(axis=0)) >= bound).sum(axis=0)
    return np.asarray((extreme + 1) / (draws + 1))


def holm(p: Float[ndarray, " tests"]) -> Float[ndarray, " tests"]:
    """Adjust the p-values of a family of tests for its size (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted
