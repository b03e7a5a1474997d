"""Related pairs of items from a log: bought together by users of one cluster (appendix A.2).

Two items are related under a cluster when enough of its users took both (support), more than their popularity
explains (NPMI), and each item keeps its best partners only: with a looser rule nearly every pair is
"related" and nothing can be learnt.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from numpy import ndarray


@dataclass(frozen=True)
class RelatedPairs:
    """Related pairs of one cluster, `a < b` by position; each with its support and NPMI."""

    a: Int[ndarray, " pairs"]
    b: Int[ndarray, " pairs"]
    support: Int[ndarray, " pairs"]
    npmi: Float[ndarray, " pairs"]


def related_pairs(taken: sp.csr_array, min_support: int, min_npmi: float, partners: int) -> RelatedPairs:
    """Find the pairs of items related by the users of one cluster, whose rows are `taken`.

    NPMI (Bouma 2009) = log(p_ab / (p_a p_b)) / -log p_ab, over the cluster's users. A pair is kept when its
    NPMI is among the `partners` best of either item.
    """
    users = taken.shape[0]
    counts = taken.astype(np.int64)
    together = sp.coo_array(sp.triu(counts.T @ counts, k=1))
    enough = together.data >= min_support
    a, b = (axis[enough] for axis in together.coords)
    support = together.data[enough]
    single = np.asarray(counts.sum(axis=0)).ravel()
    joint = support / users
    with np.errstate(divide="ignore", invalid="ignore"):
        npmi = np.log(joint * users * users / (single[a] * single[b])) / -np.log(joint)
    # A pair that every user had: the limit of the formula.
    npmi = np.where(support == users, 1.0, npmi)
    best = _best_partners(np.concatenate([a, b]), np.tile(npmi, 2), np.tile(support, 2), partners)
    keep = (npmi >= min_npmi) & best.reshape(2, -1).any(axis=0)
    return RelatedPairs(a[keep], b[keep], support[keep], npmi[keep])


def _best_partners(
    item: Int[ndarray, " rows"], npmi: Float[ndarray, " rows"], support: Int[ndarray, " rows"], partners: int
) -> Bool[ndarray, " rows"]:
    """Mark each row that is among the best `partners` rows of its `item`; ties go to support, then to order."""
    order = np.lexsort((-support, -npmi, item))
    ordered = item[order]
    positions = np.arange(len(ordered))
    starts = np.searchsorted(ordered, ordered)
    best = np.empty(len(item), dtype=bool)
    best[order] = positions - starts < partners
    return best
