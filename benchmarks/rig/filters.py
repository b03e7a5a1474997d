"""Filters of the search benchmark, and the items that they allow."""

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from benchmarks.rig.embeddings import VECTORS_PER_CHUNK
from indexes.vectors.faiss_backend import FaissVectors
from model.similarity import View

FILTERS = {"none": 1.0, "10 %": 0.1, "0.5 %": 0.005}
"""Share of the items that each filter allows; the allowed items are drawn at random."""

ALL_FILTERS = {
    **{f"{100 * share:g} %": share for share in (0.0001, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5)},
    "10 %, clustered": 0.1,
    "50 %, clustered": 0.5,
    "all": 0.999999,
    "none": 1.0,
}
"""Filters of `--filters`. The items that a clustered filter allows are near one item, and far from most queries."""


def allow(vectors: FaissVectors, view: View, name: str, share: float) -> Bool[ndarray, " count"]:
    """Return the mask of a filter."""
    if "clustered" not in name:
        return np.random.default_rng(2).random(vectors.count) < share
    (direction,) = vectors.vectors(0, view, [0])
    starts = range(0, vectors.count, VECTORS_PER_CHUNK)
    along = np.concatenate(
        [
            vectors.vectors(0, view, range(start, min(start + VECTORS_PER_CHUNK, vectors.count))) @ direction
            for start in starts
        ]
    )
    return np.asarray(along >= np.quantile(along, 1 - share))
