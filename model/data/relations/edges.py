"""Related pairs of items: items that users of the same cluster bought together (appendix A.2).

Two items are related under a cluster if enough of its users interacted with both items (support), and if this number is
higher than expected from the popularity of the items (NPMI). A pair is kept only if it is among the best pairs of
at least one of its items. Under a looser rule, nearly every pair would be related, and the network could not learn
anything from the pairs.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from numpy import ndarray


@dataclass(frozen=True)
class RelatedPairs:
    """Related pairs of one cluster, with the support and NPMI of each pair. `a` and `b` are positions, and `a < b`."""

    a: Int[ndarray, " pairs"]
    b: Int[ndarray, " pairs"]
    support: Int[ndarray, " pairs"]
    npmi: Float[ndarray, " pairs"]


def related_pairs(taken: sp.csr_array, min_support: int, min_npmi: float, partners: int) -> RelatedPairs:
    """Find the pairs of items that are related under one cluster; `taken` has one row for each of its users.

    NPMI (Bouma 2009) = log(p_ab / (p_a p_b)) / -log p_ab. The probabilities are shares of the cluster's users. A pair
    is kept only if its NPMI is among the `partners` highest of at least one of the two items.
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
    # If every user interacted with both items, the formula divides by zero. Its limit is 1.
    npmi = np.where(support == users, 1.0, npmi)
    best = _best_partners(np.concatenate([a, b]), np.tile(npmi, 2), np.tile(support, 2), partners)
    keep = (npmi >= min_npmi) & best.reshape(2, -1).any(axis=0)
    return RelatedPairs(a[keep], b[keep], support[keep], npmi[keep])


def _best_partners(
    item: Int[ndarray, " rows"], npmi: Float[ndarray, " rows"], support: Int[ndarray, " rows"], partners: int
) -> Bool[ndarray, " rows"]:
    """Mark at most `partners` rows per item: those with the highest NPMI. Ties are broken by support, then by order."""
    order = np.lexsort((-support, -npmi, item))
    ordered = item[order]
    positions = np.arange(len(ordered))
    starts = np.searchsorted(ordered, ordered)
    best = np.empty(len(item), dtype=bool)
    best[order] = positions - starts < partners
    return best
