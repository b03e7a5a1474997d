"""Natural-language relations from behaviour (appendix A.2): user -> taste -> cluster -> description -> edges.

Each user is a distribution over item categories; KMeans groups the users; each cluster becomes a relation,
worded from its statistics in the paper's pattern (primary, secondary, moderate and minimal interest). Two
items are related under a cluster when enough of its users took both (support), more than their popularity
explains (NPMI), and each item keeps its best partners only: with a looser rule nearly every pair is
"related" and nothing can be learnt.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from model.config import Behaviour
from model.records import INTRA_RELATION

WORDS: dict[Behaviour, tuple[str, str]] = {
    "buy": ("Co-purchased", "buy"),
    "watch": ("Co-watched", "watch"),
    "read": ("Co-read", "read"),
    "play": ("Co-played", "play"),
    "listen to": ("Co-listened", "listen to"),
    "use": ("Used together", "use"),
}

MODERATE = 0.05
"""Least share of a cluster's interactions for a category to be called a moderate interest."""

MOST_NAMED = 10
"""Categories named in a description at most, as in the paper; a text tower reads 77 tokens anyway."""


@dataclass(frozen=True)
class Log:
    """Who took what: `taken[u, i]` is true when user u had item i; `categories[i, c]` sums to 1 over c."""

    taken: sp.csr_array
    categories: Float[ndarray, "items categories"]
    category_names: tuple[str, ...]


@dataclass(frozen=True)
class Pairs:
    """Related pairs of one cluster, `a < b` by position; each with its support and NPMI."""

    a: Int[ndarray, "pairs"]
    b: Int[ndarray, "pairs"]
    support: Int[ndarray, "pairs"]
    npmi: Float[ndarray, "pairs"]


def user_clusters(log: Log, clusters: int, seed: int) -> Int[ndarray, "users"]:
    """Cluster of each user by KMeans over their distribution of categories."""
    from sklearn.cluster import KMeans

    tastes = log.taken @ log.categories
    tastes /= tastes.sum(axis=1, keepdims=True)
    clusters = min(clusters, len(np.unique(tastes, axis=0)))
    return np.asarray(KMeans(clusters, n_init=10, random_state=seed).fit_predict(tastes))


def describe_clusters(
    log: Log, membership: Int[ndarray, "users"], behaviour: Behaviour
) -> list[tuple[str, str]]:
    """A relation id and a description for each cluster.

    Categories are ranked by share x lift. By raw share alone, a category that everybody likes (Drama) leads
    most clusters and several get the same name; lift is what tells them apart.
    """
    tastes = log.taken @ log.categories
    overall = tastes.sum(axis=0) / tastes.sum()
    found: list[tuple[str, str]] = []
    ids = {INTRA_RELATION.relation_id}
    texts: set[str] = set()
    for cluster in range(membership.max() + 1):
        total = tastes[membership == cluster].sum(axis=0)
        share = total / total.sum()
        order = np.argsort(-share * share / np.maximum(overall, 1e-12), kind="stable")
        text = _word(share, order, log.category_names, behaviour)
        name = slug(" ".join(log.category_names[i] for i in order[:2]))
        if text in texts:  # the statistics cannot tell the two apart; the number at least keeps them two
            text = f"{text} (group {cluster + 1})"
        while name in ids:
            name = f"{name}-{cluster + 1}"
        ids.add(name)
        texts.add(text)
        found.append((name, text))
    return found


def related_pairs(taken: sp.csr_array, min_support: int, min_npmi: float, partners: int) -> Pairs:
    """Pairs of items related by the users of one cluster, whose rows are `taken`.

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
    npmi = np.where(support == users, 1.0, npmi)  # everybody had both: the limit of the formula
    best = _best_partners(np.concatenate([a, b]), np.tile(npmi, 2), np.tile(support, 2), partners)
    keep = (npmi >= min_npmi) & best.reshape(2, -1).any(axis=0)
    return Pairs(a[keep], b[keep], support[keep], npmi[keep])


def slug(name: str) -> str:
    """`name` in lower case with single hyphens: safe in a URL and easy to type."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "relation"


def _best_partners(
    item: Int[ndarray, "rows"], npmi: Float[ndarray, "rows"], support: Int[ndarray, "rows"], partners: int
) -> Bool[ndarray, "rows"]:
    """Whether each row is among the best `partners` rows of its `item`; ties go to support, then to order."""
    order = np.lexsort((-support, -npmi, item))
    ordered = item[order]
    positions = np.arange(len(ordered))
    starts = np.searchsorted(ordered, ordered)
    best = np.empty(len(item), dtype=bool)
    best[order] = positions - starts < partners
    return best


def _word(
    share: Float[ndarray, "categories"],
    order: Int[ndarray, "categories"],
    names: Sequence[str],
    behaviour: Behaviour,
) -> str:
    together, verb = WORDS[behaviour]
    named = [int(category) for category in order[:MOST_NAMED]]
    lead = share[named[0]]
    strength = "overwhelmingly" if lead >= 0.7 else "primarily"
    text = f"{together} by people who {strength} {verb} {names[named[0]]}"
    rest = named[1:]
    if rest and share[rest[0]] >= MODERATE:
        text += f", followed by {names[rest.pop(0)]}"
    moderate = [category for category in rest if share[category] >= MODERATE]
    minimal = [category for category in rest if share[category] < MODERATE]
    if moderate:
        text += f", with moderate interest in {_list(moderate, names)}"
    if minimal:
        text += f", while showing minimal engagement in {_list(minimal, names)}"
    return text + "."


def _list(categories: Sequence[int], names: Sequence[str]) -> str:
    *most, last = (names[category] for category in categories)
    return f"{', '.join(most)} and {last}" if most else last
