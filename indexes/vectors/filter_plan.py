"""Choice of the way in which a filtered search finds the nearest allowed items: a pure function of a few numbers.

- `scan`: the search scores every allowed item. It is exact, and reads a vector per allowed item.
- `codes`: the search compares one-bit codes of all allowed items, and scores the best candidates (`code_scan.py`).
- `ann`: the search takes the nearest of all items from the ANN index, and keeps those that the filter allows. If enough
  are left, they are the nearest allowed items, as surely as the ANN index finds the nearest of all items: any other
  allowed item is farther away than every item that was found. The result does not depend on how the allowed items are
  spread. If too few are left, because the filter allows mainly items that are far from the query, the search scans
  codes or vectors.
"""

import math
from dataclasses import dataclass
from typing import Literal

MAX_ANN_DEPTH = 1_000
"""Maximum number of candidates from an ANN index. Finding more would mean visiting most of it, so a scan is used."""

VECTORS_PER_CANDIDATE = 32
"""Number of vectors that an HNSW graph reads for each candidate. A scan reads one for each allowed item."""

MIN_CODED_ROWS = 40_000
"""Number of allowed items from which codes are scanned. To scan so many vectors, which is exact, takes 10 ms."""

MIN_CODED_ITEMS = 100_000
"""Number of items from which an index has codes. With fewer, hardly any filter allows enough of them."""

MAX_CODE_CANDIDATES = 16_384
"""Maximum number of candidates of codes for up to 256 results; for more results it is 64 for each."""

CODES_PER_CANDIDATE = 16
"""Minimum number of allowed items for each candidate of codes, so that scoring takes less time than the scan."""

MEASURED_SHARES = (0.5, 0.25, 0.1, 0.05)
"""Shares of allowed items at which the recall of filtered searches is measured when an index is built."""


@dataclass(frozen=True)
class FilterPlan:
    """Way to search among allowed items, with the number of candidates if the ANN index or codes provide them."""

    method: Literal["scan", "codes", "ann"]
    depth: int = 0


SCAN = FilterPlan("scan")


def plan_filter(
    allowed: int, items: int, k: int, least_share: float | None, coded: bool = False
) -> FilterPlan:
    """Choose how to find the `k` nearest of `allowed` items, out of all `items`.

    The ANN index is used if this reads fewer vectors than a scan, and if at least the share `least_share` is allowed:
    the least share at which the recall was sufficient when the index was built (None: at no share). Otherwise codes are
    used, if there are any (`coded`) and many items are allowed.
    """
    if least_share is not None and allowed >= least_share * items:
        depth = candidates_needed(allowed, items, k)
        if depth <= MAX_ANN_DEPTH and VECTORS_PER_CANDIDATE * depth < allowed:
            return FilterPlan("ann", depth)
    if coded and allowed >= MIN_CODED_ROWS:
        depth = min(max(MAX_CODE_CANDIDATES, 64 * k), allowed // CODES_PER_CANDIDATE)
        if depth >= 10 * k:
            return FilterPlan("codes", depth)
    return SCAN


def candidates_needed(allowed: int, items: int, k: int) -> int:
    """Return how many candidates contain more than `k` allowed ones, if the allowed items are spread at random.

    The number of allowed ones among n candidates is about a Poisson variable. With k + 1 plus three times the root of
    this number expected, more than `k` are found in at least 98 of 100 searches.
    """
    wanted = k + 1 + 3 * math.sqrt(k + 1)
    return min(math.ceil(wanted * items / max(allowed, 1)), items)
