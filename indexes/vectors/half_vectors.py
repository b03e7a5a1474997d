"""Half-precision vectors in memory, scanned by one thread, and inner products of rows by one thread.

A product of matrices by BLAS is split between threads if it is large. On busy processors the calling thread then waits
for the others: the products of a free-text relation took ten times as long.
"""

import faiss
import numpy as np
from jaxtyping import Bool, Float16, Float32
from numpy import ndarray

from .contract import Neighbours
from .faiss_threads import threads

LANES = 16
"""Number of components that FAISS multiplies at once. Rows are filled up with zeros to a multiple of it."""


class HalfVectors:
    """Vectors of any length in half precision; safe to search from many threads."""

    def __init__(self, rows: Float16[ndarray, "rows width"]) -> None:
        """Copy `rows`; their width must be a multiple of `LANES`."""
        self._index = faiss.IndexScalarQuantizer(
            rows.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        faiss.copy_array_to_vector(rows.reshape(-1).view(np.uint8), self._index.codes)
        self._index.ntotal = len(rows)
        self.nbytes = rows.nbytes

    def nearest(
        self, query: Float32[ndarray, " dim"], k: int, allowed: Bool[ndarray, " rows"] | None = None
    ) -> Neighbours:
        """Return the `k` rows with the greatest inner products with `query`, the greatest first, and the products.

        If `allowed` is given, only rows at which it is true are returned. There are fewer than `k` rows if fewer are
        allowed.
        """
        filled = np.zeros((1, self._index.d), np.float32)
        filled[0, : len(query)] = query
        params = None
        if allowed is not None:
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            params = faiss.SearchParameters(sel=selector)
        with threads(1):
            scores, rows = self._index.search(filled, min(k, max(self._index.ntotal, 1)), params=params)
        there = rows[0] >= 0
        return Neighbours(rows[0, there], scores[0, there])


def padded_width(dim: int) -> int:
    """Return the least multiple of `LANES` that is at least `dim`."""
    return -(-dim // LANES) * LANES


def inner_products(
    rows: Float32[ndarray, "rows dim"], query: Float32[ndarray, " dim"]
) -> Float32[ndarray, " rows"]:
    """Return the inner product of each of `rows` (contiguous) with `query`."""
    found = np.empty(len(rows), np.float32)
    if found.size:
        query = np.ascontiguousarray(query, np.float32)
        faiss.fvec_inner_products_ny(
            faiss.swig_ptr(found), faiss.swig_ptr(query), faiss.swig_ptr(rows), rows.shape[1], len(rows)
        )
    return found
