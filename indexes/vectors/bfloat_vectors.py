"""Vectors of 16-bit numbers in memory, scanned by one thread, and inner products of rows by one thread.

The numbers are bfloat16: they have the range of single precision and 8 significant bits, and take a sixth of the time
of half precision to compute.

A product of matrices by BLAS is split between threads if it is large. On busy processors the calling thread then waits
for the others: the products of a free-text relation took ten times as long.
"""

import faiss
import numpy as np
from jaxtyping import Bool, Float32, UInt16
from numpy import ndarray

from .contract import Neighbours
from .faiss_threads import threads

LANES = 16
"""Number of components that FAISS multiplies at once. Rows are filled up with zeros to a multiple of it."""


class BfloatVectors:
    """Vectors of any length in bfloat16, zero at first; safe to search from many threads once `rows` is filled.

    `rows` contains numbers that `bfloat16` returned, and is valid as long as the object exists.
    """

    def __init__(self, count: int, dim: int) -> None:
        """Allocate `count` vectors of at least `dim` components; a multiple of `LANES`, the others stay zero."""
        width = padded_width(dim)
        self._index = faiss.IndexScalarQuantizer(
            width, faiss.ScalarQuantizer.QT_bf16, faiss.METRIC_INNER_PRODUCT
        )
        self._index.codes.resize(2 * count * width)
        self._index.ntotal = count
        codes = faiss.rev_swig_ptr(self._index.codes.data(), 2 * count * width)
        self.rows: UInt16[ndarray, "rows width"] = codes.view(np.uint16).reshape(count, width)

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


def bfloat16(numbers: Float32[ndarray, "rows dim"]) -> UInt16[ndarray, "rows dim"]:
    """Round finite `numbers` to bfloat16, ties away from zero."""
    return ((numbers.view(np.uint32) + np.uint32(0x8000)) >> np.uint32(16)).astype(np.uint16)


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
