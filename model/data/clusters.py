"""Clusters of users by what they buy, and the sentence that describes each (appendix A.2).

Each user is a distribution over item categories; KMeans groups the users; each cluster becomes a relation,
worded from its statistics in the paper's pattern (primary, secondary, moderate and minimal interest).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
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


def slug(name: str) -> str:
    """`name` in lower case with single hyphens: safe in a URL and easy to type."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "relation"


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
