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


MAX_PAIRS_AT_ONCE = 30_000_000
"""Maximum number of pairs of users' items that are counted at once: about 400 MB."""

MAX_PAIRS = 4_000_000_000
"""Maximum number of pairs of items, over all users of a cluster, that are counted; heavy users are sampled above it."""


def related_pairs(
    taken: sp.csr_array, min_support: int, min_npmi: float, partners: int, max_pairs: int = MAX_PAIRS
) -> RelatedPairs:
    """Find the pairs of items that are related under one cluster; `taken` has one row for each of its users.

    NPMI (Bouma 2009) = log(p_ab / (p_a p_b)) / -log p_ab. The probabilities are shares of the cluster's users. A pair
    is kept only if its NPMI is among the `partners` highest of at least one of the two items.

    A user with n items has n * n pairs. If all users together have more than `max_pairs`, those with the most items
    take part with a random sample of them (always the same one), as large as `max_pairs` allows.
    """
    users = taken.shape[0]
    taken = _sampled(taken, max_pairs)
    a, b, support = _supports(taken, min_support)
    single = np.bincount(taken.indices, minlength=taken.shape[1])
    joint = support / users
    with np.errstate(divide="ignore", invalid="ignore"):
        npmi = np.log(joint * users * users / (single[a] * single[b])) / -np.log(joint)
    # If every user interacted with both items, the formula divides by zero. Its limit is 1.
    npmi = np.where(support == users, 1.0, npmi)
    best = _best_partners(np.concatenate([a, b]), np.tile(npmi, 2), np.tile(support, 2), partners)
    keep = (npmi >= min_npmi) & best.reshape(2, -1).any(axis=0)
    return RelatedPairs(a[keep], b[keep], support[keep], npmi[keep])


def _supports(
    taken: sp.csr_array, min_support: int
) -> tuple[Int[ndarray, " pairs"], Int[ndarray, " pairs"], Int[ndarray, " pairs"]]:
    """Count the users of each pair of items, and return the pairs with at least `min_support` (a < b, in order).

    The product is computed for a block of items a at a time, and what has too little support is dropped at once.
    """
    counts = sp.csr_array(
        (np.ones(len(taken.indices), dtype=np.int32), taken.indices, taken.indptr), shape=taken.shape
    )
    by_item = sp.csr_array(counts.T)
    sizes = np.diff(counts.indptr)
    # An item's row of the product has at most as many entries as its users have items together.
    most = np.asarray((by_item @ sizes.astype(np.int64)), dtype=np.int64)
    found = []
    for start, end in _blocks(most, MAX_PAIRS_AT_ONCE):
        block = sp.coo_array(by_item[start:end] @ counts)
        a, b = block.coords[0] + start, block.coords[1]
        enough = (block.data >= min_support) & (a < b)
        a, b, support = (
            a[enough].astype(np.int64),
            b[enough].astype(np.int64),
            block.data[enough].astype(np.int64),
        )
        order = np.lexsort((b, a))
        found.append((a[order], b[order], support[order]))
    if not found:
        return (np.empty(0, dtype=np.int64),) * 3
    a, b, support = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return a, b, support


def _blocks(sizes: Int[ndarray, " rows"], most: int) -> list[tuple[int, int]]:
    """Divide rows into blocks whose `sizes` sum to at most `most`; a larger row is a block of its own."""
    group = np.maximum(np.cumsum(sizes) - 1, 0) // most
    edges = np.flatnonzero(np.diff(group)) + 1
    return list(zip([0, *edges], [*edges, len(sizes)], strict=True)) if len(sizes) else []


def _sampled(taken: sp.csr_array, max_pairs: int) -> sp.csr_array:
    """Return `taken` with a sample of the items of the heaviest users, so that there are at most `max_pairs` pairs."""
    sizes = np.diff(taken.indptr).astype(np.int64)
    if (sizes * sizes).sum() <= max_pairs:
        return taken
    low, high = 1, int(sizes.max())
    while low < high:
        middle = (low + high + 1) // 2
        if (np.minimum(sizes, middle) ** 2).sum() <= max_pairs:
            low = middle
        else:
            high = middle - 1
    user = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((np.random.default_rng(0).random(len(user)), user))
    kept = np.sort(order[np.arange(len(user)) - taken.indptr[user] < low])
    return sp.csr_array((taken.data[kept], (user[kept], taken.indices[kept])), shape=taken.shape)


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
