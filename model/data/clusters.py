"""Clusters of users who buy from similar categories, and a description of each cluster (appendix A.2).

Each user is represented by a distribution over item categories, and KMeans clusters the users. Each cluster becomes a
relation. Its description is generated from its statistics and follows the paper's pattern: primary, secondary, moderate
and minimal interest.
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

BEHAVIOUR_WORDS: dict[Behaviour, tuple[str, str]] = {
    "buy": ("Co-purchased", "buy"),
    "watch": ("Co-watched", "watch"),
    "read": ("Co-read", "read"),
    "play": ("Co-played", "play"),
    "listen to": ("Co-listened", "listen to"),
    "use": ("Used together", "use"),
}
"""Opening and verb of a description for each behaviour, as in "Co-purchased by people who primarily buy ..."."""

MIN_OVERWHELMING_SHARE = 0.7
"""Minimum share of the first category in a cluster's interactions for "overwhelmingly" instead of "primarily"."""

MIN_MODERATE_SHARE = 0.05
"""Minimum share of a category in a cluster's interactions for "moderate interest" instead of "minimal engagement"."""

MAX_NAMED_CATEGORIES = 10
"""Maximum number of categories in a description, as in the paper. The text tower of CLIP reads only 77 tokens."""


@dataclass(frozen=True)
class InteractionLog:
    """Users and their items. `taken[u, i]` is 1 if user u interacted with item i, otherwise 0.

    `categories[i, c]` is the share of category c in item i; the shares of an item sum to 1.
    """

    taken: sp.csr_array
    categories: Float[ndarray, "items categories"]
    category_names: tuple[str, ...]


def user_clusters(log: InteractionLog, clusters: int, seed: int) -> Int[ndarray, " users"]:
    """Cluster users by their distributions over categories with KMeans; return the cluster of each user."""
    from sklearn.cluster import KMeans

    tastes = log.taken @ log.categories
    tastes /= tastes.sum(axis=1, keepdims=True)
    clusters = min(clusters, len(np.unique(tastes, axis=0)))
    return np.asarray(KMeans(clusters, n_init=10, random_state=seed).fit_predict(tastes))


def describe_clusters(
    log: InteractionLog, membership: Int[ndarray, " users"], behaviour: Behaviour
) -> list[tuple[str, str]]:
    """Return the relation ID and the description of each cluster.

    Categories are ranked by share x lift. If they were ranked by share only, a category that is popular with all users
    (such as Drama in a log of films) would lead most clusters, and several clusters would get the same name. Lift
    distinguishes them.
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
        text = _describe(share, order, log.category_names, behaviour)
        name = slug(" ".join(log.category_names[i] for i in order[:2]))
        # Two clusters with the same statistics get the same text, so a number is added.
        if text in texts:
            text = f"{text} (group {cluster + 1})"
        while name in ids:
            name = f"{name}-{cluster + 1}"
        ids.add(name)
        texts.add(text)
        found.append((name, text))
    return found


def slug(name: str) -> str:
    """Convert `name` to a slug for URLs and commands: lower case, with single hyphens between words."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "relation"


def _describe(
    share: Float[ndarray, " categories"],
    order: Int[ndarray, " categories"],
    names: Sequence[str],
    behaviour: Behaviour,
) -> str:
    """Describe a cluster by its categories; `order` contains their positions, most important first."""
    together, verb = BEHAVIOUR_WORDS[behaviour]
    named = [int(category) for category in order[:MAX_NAMED_CATEGORIES]]
    lead = share[named[0]]
    strength = "overwhelmingly" if lead >= MIN_OVERWHELMING_SHARE else "primarily"
    text = f"{together} by people who {strength} {verb} {names[named[0]]}"
    rest = named[1:]
    if rest and share[rest[0]] >= MIN_MODERATE_SHARE:
        text += f", followed by {names[rest.pop(0)]}"
    moderate = [category for category in rest if share[category] >= MIN_MODERATE_SHARE]
    minimal = [category for category in rest if share[category] < MIN_MODERATE_SHARE]
    if moderate:
        text += f", with moderate interest in {_enumerate(moderate, names)}"
    if minimal:
        text += f", while showing minimal engagement in {_enumerate(minimal, names)}"
    return text + "."


def _enumerate(categories: Sequence[int], names: Sequence[str]) -> str:
    *most, last = (names[category] for category in categories)
    return f"{', '.join(most)} and {last}" if most else last
