"""Exact scan of a flat index, of all rows or of the rows that a filter allows.

FAISS can skip the rows that a filter forbids (`IDSelectorBitmap`). It then looks at every row of the index. With a
million rows, this takes 2 ms even if none is allowed, and longer if the processor cannot predict which are allowed. If
few rows are allowed, they are therefore copied block by block, and FAISS scans each block.
"""

from typing import Any

import faiss
import numpy as np
from jaxtyping import Bool, Float16, Float32, Int64
from numpy import ndarray

from .contract import Neighbours, widened

MAX_COPIED_SHARE = 0.25
"""Maximum share of the rows of an index for which the allowed rows are copied."""

BLOCK_ROWS = 1_024
"""Number of rows copied at a time. With 512 components, a block fits into the cache of a core."""


def near_rows(
    exact: Any,
    halves: Float16[ndarray, "items dim"],
    query: Float32[ndarray, " dim"],
    wanted: int,
    few: int,
    allowed: Bool[ndarray, " items"] | None = None,
) -> Neighbours:
    """Find every row that may be among the `wanted` best of the `few` allowed rows; see `widened`.

    `exact` is the flat index with the vectors `halves`. If `allowed` is None, all rows are allowed.
    """
    if allowed is not None and few <= MAX_COPIED_SHARE * exact.ntotal:
        rows = np.flatnonzero(allowed)
        rough = widened(lambda depth: _scan_rows(exact, halves, query, rows, depth), wanted, few)
    else:
        params = None
        if allowed is not None:
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            params = faiss.SearchParameters(sel=selector)

        def find(depth: int) -> Neighbours:
            scores, rows = (found[0] for found in exact.search(query[None], depth, params=params))
            return Neighbours(rows, scores)

        rough = widened(find, wanted, few)
    assert rough is not None, "a scan supports every depth"
    return rough


def _scan_rows(
    exact: Any,
    halves: Float16[ndarray, "items dim"],
    query: Float32[ndarray, " dim"],
    rows: Int64[ndarray, " rows"],
    depth: int,
) -> Neighbours:
    """Return the `depth` best of the given `rows` by the scores of FAISS, best first.

    There must be at least `depth` rows.
    """
    scanner = exact.sq.select_InvertedListScanner(faiss.METRIC_INNER_PRODUCT, None, False, None)
    query = np.ascontiguousarray(query, np.float32)
    scores, found = np.full(depth, -np.inf, np.float32), np.full(depth, -1, np.int64)
    # The vectors begin at an odd position of the file. NumPy would copy all of them to align them, but not bytes.
    stored = halves.view(np.uint8)
    block = np.empty((BLOCK_ROWS, stored.shape[1]), np.uint8)
    codes, best = faiss.swig_ptr(block), (faiss.swig_ptr(scores), faiss.swig_ptr(found))
    try:
        scanner.set_query(faiss.swig_ptr(query))
        scanner.set_list(0, 0.0)
        for start in range(0, len(rows), BLOCK_ROWS):
            some = rows[start : start + BLOCK_ROWS]
            np.take(stored, some, axis=0, out=block[: len(some)], mode="clip")
            scanner.scan_codes(len(some), codes, faiss.swig_ptr(some), *best, depth)
    finally:
        # FAISS leaves it to the caller to free the scanner. To set `thisown` instead would break the type of
        # `exact.sq` after three scanners (SWIG, FAISS 1.15.1).
        faiss.InvertedListScanner.__swig_destroy__(scanner)
    order = np.argsort(-scores)
    return Neighbours(found[order], scores[order])
