"""Guard against noise: tells when so many pairs of items are related that training cannot learn from them.

If nearly every pair of a relation's items is related, the relation says nothing about a pair. The remedy is a higher
minimum support. It is found by trying values on the counted supports.
"""

import numpy as np
from jaxtyping import Int
from numpy import ndarray

MAX_RELATED_SHARE = 0.5
"""Share of all pairs of a relation's items above which its related pairs are called noise."""

SUGGESTED_SHARE = 0.25
"""Share of all pairs that is left at most by the suggested options."""

MIN_JUDGED_ITEMS = 12
"""Number of items of a relation below which it is not judged: among few items, most pairs may well be related."""


def noise_advice(relation_id: str, support: Int[ndarray, " pairs"], items: int) -> str | None:
    """Say that the pairs of a relation are noise, with the option and a value that helps; None if they are not.

    `support` contains the support of each related pair, and `items` is the number of items with such a pair. The
    suggested minimum support is the lowest that leaves at most `SUGGESTED_SHARE` of all pairs, but not none. If the
    supports do not differ enough for that, fewer partners are suggested: n items with p partners have at most n p of
    the n (n - 1) / 2 pairs.
    """
    every = items * (items - 1) / 2
    if items < MIN_JUDGED_ITEMS or len(support) <= MAX_RELATED_SHARE * every:
        return None
    values, pairs = np.unique(support, return_counts=True)
    left = len(support) - np.cumsum(pairs)  # pairs with a higher support than each value
    helpful = np.flatnonzero((left > 0) & (left <= SUGGESTED_SHARE * every))
    remedy = (
        f"raise --min-support to about {values[helpful[0]] + 1}"
        if len(helpful)
        else f"lower --partners to about {max(1, int(SUGGESTED_SHARE * (items - 1) / 2))}"
    )
    return (
        f"Under {relation_id!r}, {len(support) / every:.0%} of all pairs of its {items:,} items are related, so the "
        f"relation says little about a pair: {remedy}."
    )
