"""Scan of one-bit codes: it finds candidates among the items that a wide filter allows, which are then scored exactly.

A code has one bit per component of a vector (RaBitQ: Gao & Long 2024, arXiv 2405.12497), so a scan reads a fourteenth
of the bytes. The vectors are first rotated at random, as the authors require: components of trained vectors differ in
size, and without the rotation 200 candidates contained 88 to 97 % of the ten nearest items instead of 99.7 %.

The error of an estimate depends on the item and the query, not on the filter. It is measured when the codes are written
(`filter_recall.py`): a search scores every item whose estimate is at most this `margin` below the results, and how many
these are depends on how many items are about as near as the results.
"""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from .ann_index import VECTORS_PER_CHUNK, Candidates, read_index, write_index

QUERY_BITS = 4
"""Number of bits per component of the query. With 8 bits, recall is the same, and a scan takes a quarter longer."""

TRAINING_VECTORS = 20_000
"""Number of vectors from which the centre of the codes is computed."""

MAX_COPIED_CODES = 0.33
"""Maximum share of the codes of a file for which the codes of the allowed items are copied."""


class CodeScan:
    """Rotated one-bit codes of the vectors of one relation and view; safe to search from many threads."""

    def __init__(self, index: Any) -> None:
        """Take a FAISS index that `write` wrote: a rotation, followed by codes."""
        self._index = index  # owns the memory
        self._rotation = faiss.downcast_VectorTransform(index.chain.at(0))
        self._codes = faiss.downcast_index(index.index)
        stored = faiss.rev_swig_ptr(self._codes.codes.data(), self._codes.codes.size())
        # NumPy copies a code as one value ten times as fast as a row of bytes.
        self._stored = stored.view(np.dtype((np.void, self._codes.code_size)))

    @staticmethod
    def bytes_per_vector(dim: int) -> int:
        """Return the size of a code with its two correction factors."""
        return -(-dim // 8) + 8

    @staticmethod
    def write(exact: Any, path: Path) -> None:
        """Write the codes of all vectors of the flat index `exact` to `path`."""
        rotation = faiss.RandomRotationMatrix(exact.d, exact.d)
        rotation.init(0)
        index = faiss.IndexPreTransform(rotation, faiss.IndexRaBitQ(exact.d, faiss.METRIC_INNER_PRODUCT))
        drawn = np.random.default_rng(0).permutation(exact.ntotal)[:TRAINING_VECTORS]
        index.train(exact.reconstruct_batch(np.sort(drawn)))
        for start in range(0, exact.ntotal, VECTORS_PER_CHUNK):
            index.add(exact.reconstruct_n(start, min(VECTORS_PER_CHUNK, exact.ntotal - start)))
        write_index(index, path)

    @classmethod
    def open(cls, path: Path) -> "CodeScan":
        """Map the codes into memory, which the processes of a server then share."""
        return cls(read_index(path, faiss.IO_FLAG_MMAP_IFC))

    def nearest(
        self, query: Float32[ndarray, " dim"], candidates: int, allowed: Bool[ndarray, " items"], few: int
    ) -> Candidates:
        """Return the `candidates` best of the `few` allowed rows with their estimated cosines, best first."""
        rotated = self._rotation.apply(query[None])
        rows = None
        if few <= MAX_COPIED_CODES * self._index.ntotal:
            rows = np.flatnonzero(allowed)
            index, selector = self._copied(rows), None
        else:
            index, selector = self._codes, faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        params = faiss.RaBitQSearchParameters(qb=QUERY_BITS, sel=selector)
        estimates, found = (one[0] for one in index.search(rotated, min(candidates, few), params=params))
        return found if rows is None else rows[found], estimates

    def _copied(self, rows: Int64[ndarray, " rows"]) -> Any:
        """Return an index of the codes at `rows` only: FAISS would look at every row to skip the others."""
        index = faiss.IndexRaBitQ(self._codes.d, faiss.METRIC_INNER_PRODUCT)
        index.center, index.is_trained, index.ntotal = self._codes.center, True, len(rows)
        copied = np.take(self._stored, rows, mode="clip")
        faiss.copy_array_to_vector(copied.view(np.uint8), index.codes)
        return index
