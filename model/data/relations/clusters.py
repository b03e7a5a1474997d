"""Clusters of users who buy from similar categories, and a description of each cluster (appendix A.2).

Each user is represented by a distribution over item categories, and KMeans clusters the users. Each cluster becomes a
relation. Its description is generated from two statistics of each category: its *share* of the cluster's interactions,
and its *lift*, which is this share divided by the category's share of all interactions. The description follows the
paper's pattern: primary, secondary, moderate and minimal interest. The primary category has a lift above 1 if any
large category has, secondary and moderate ones have a lift of about 1 or more, and minimal ones are popular categories
with a low lift.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from numpy import ndarray

from model.config import Behaviour
from model.records import INTRA_RELATION, Relation

from .cluster_count import MAX_AUTO_CLUSTERS, cluster_count

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
"""Minimum share of the first category in a cluster's interactions for "overwhelmingly" instead of "primarily".

A first category that does not have the largest share is called "especially".
"""

MIN_MODERATE_SHARE = 0.05
"""Minimum share of a category in a cluster's interactions for "followed by" and "moderate interest".

A category with a smaller share may be called "a particular interest" or "minimal engagement".
"""

MIN_MODERATE_LIFT = 0.9
"""Minimum lift of a category for "followed by" and "moderate interest": slightly below the average of all users."""

MIN_PARTICULAR_SHARE = 0.01
"""Minimum share of a category in a cluster's interactions for "a particular interest"."""

MIN_PARTICULAR_LIFT = 1.2
"""Minimum lift of a category for "a particular interest"."""

MAX_MINIMAL_LIFT = 0.5
"""Lift below which a category is called "minimal engagement".

Its share of all interactions must also be at least the median of all categories: a category that few users buy anywhere
does not distinguish a cluster.
"""

MAX_INTERESTS = 8
"""Maximum number of categories in a description, without those of "minimal engagement"."""

MAX_NAMED_CATEGORIES = 10
"""Maximum number of categories in a description, as in the paper. The text tower of CLIP reads only 77 tokens."""

MIN_PRIMARY_LIFT = 1 + 1e-9
"""Minimum lift of the first category if any large category has it: above 1, except for rounding errors."""


MAX_NAME_CATEGORIES = 2
"""Maximum number of categories in the name of a relation."""

MAX_FITTED_CELLS = 5_000_000
"""Maximum number of cells (users x categories) that KMeans is fitted on: 40 MB. More users are sampled."""

TASTE_DECIMALS = 9
"""Number of decimals of the shares by which users are compared."""

ASSIGNED_CELLS = 5_000_000
"""Number of cells of the users that are assigned to clusters at once."""


@dataclass(frozen=True)
class InteractionLog:
    """Users and their items. `taken[u, i]` is 1 if user u interacted with item i, otherwise 0.

    `categories[i, c]` is the share of category c in item i; the shares of an item sum to 1.
    """

    taken: sp.csr_array
    categories: sp.csr_array
    category_names: tuple[str, ...]


def user_clusters(log: InteractionLog, clusters: int | Literal["auto"], seed: int) -> Int[ndarray, " users"]:
    """Cluster users by their distributions over categories with KMeans; return the cluster of each user.

    KMeans is fitted on a random sample of users if there are more than `MAX_FITTED_CELLS` allow, and every user is
    assigned to the nearest centre. There are fewer clusters if fewer users differ in their distributions. For the
    number of clusters "auto", see `cluster_count`.
    """
    from sklearn.cluster import KMeans

    users, names = log.taken.shape[0], len(log.category_names)
    most = MAX_AUTO_CLUSTERS if clusters == "auto" else clusters
    fitted = min(users, max(most * 100, MAX_FITTED_CELLS // names))
    rows = np.arange(users)
    if fitted < users:
        rows = np.sort(np.random.default_rng(seed).choice(users, fitted, replace=False))
    tastes = _tastes(log, rows)
    if clusters == "auto":
        clusters = cluster_count(tastes, seed)
    clusters = min(clusters, len(np.unique(tastes, axis=0)))
    kmeans = KMeans(clusters, n_init=10, random_state=seed).fit(tastes)
    if fitted == users:
        return np.asarray(kmeans.labels_)
    block = max(1, ASSIGNED_CELLS // names)
    return np.concatenate(
        [
            kmeans.predict(_tastes(log, np.arange(start, min(start + block, users))))
            for start in range(0, users, block)
        ]
    )


def _tastes(log: InteractionLog, rows: Int[ndarray, " rows"]) -> Float[ndarray, "rows categories"]:
    """Return the distributions of some users over the categories; each row sums to 1."""
    taken = log.taken if len(rows) == log.taken.shape[0] else log.taken[rows]
    tastes = (taken @ log.categories).toarray()
    tastes /= tastes.sum(axis=1, keepdims=True)
    # Users of the same taste differ by rounding errors, which are no reason for another cluster.
    return np.asarray(np.round(tastes, TASTE_DECIMALS))


def category_totals(
    log: InteractionLog, membership: Int[ndarray, " users"]
) -> Float[ndarray, "clusters categories"]:
    """Return the interactions of each cluster with each category."""
    users = len(membership)
    indicator = sp.csr_array(
        (np.ones(users), (membership, np.arange(users))), shape=(membership.max() + 1, users)
    )
    return np.asarray((indicator @ log.taken @ log.categories).toarray())


def describe_clusters(
    log: InteractionLog, membership: Int[ndarray, " users"], behaviour: Behaviour
) -> list[Relation]:
    """Return the relation of each cluster, with its ID, its description and its name for people.

    Categories are ranked by share x lift. If they were ranked by share only, a category that is popular with all users
    (such as Drama in a log of films) would lead most clusters, and several clusters would get the same name. Lift
    distinguishes them.
    """
    totals = category_totals(log, membership)
    overall = totals.sum(axis=0) / totals.sum()
    found: list[Relation] = []
    ids = {INTRA_RELATION.relation_id}
    texts: set[str] = set()
    for cluster in range(membership.max() + 1):
        share = totals[cluster] / totals[cluster].sum()
        order = np.argsort(-share * share / np.maximum(overall, 1e-12), kind="stable")
        text, title = _describe(share, overall, order, log.category_names, behaviour)
        # A category that none of the users took does not name their relation.
        name = slug(" ".join(log.category_names[i] for i in order[:2] if share[i]))
        # Clusters with nearly the same statistics get the same text, so a number is added.
        if text in texts:
            text = f"{text} (group {cluster + 1})"
        if any(title == other.name for other in found):
            title = f"{title} (group {cluster + 1})"
        while name in ids:
            name = f"{name}-{cluster + 1}"
        ids.add(name)
        texts.add(text)
        found.append(Relation(name, text, name=title))
    return found


def name_categories(categories: Sequence[str]) -> str:
    """Return the name for people of a relation whose first categories are `categories`: "Office, then Music"."""
    return ", then ".join(categories[:MAX_NAME_CATEGORIES])


def slug(name: str) -> str:
    """Convert `name` to a slug for URLs and commands: lower case, with single hyphens between words."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "relation"


def _describe(
    share: Float[ndarray, " categories"],
    overall: Float[ndarray, " categories"],
    order: Int[ndarray, " categories"],
    names: Sequence[str],
    behaviour: Behaviour,
) -> tuple[str, str]:
    """Describe a cluster by its categories; return the description and the name for people.

    `share` contains the shares of the categories in the cluster's interactions, `overall` those in all interactions.
    `order` contains the positions of the categories, most important first.
    """
    lift = share / np.maximum(overall, 1e-12)
    large = share >= MIN_MODERATE_SHARE
    first = order[large[order]] if large.any() else order
    primary = next((category for category in first if lift[category] >= MIN_PRIMARY_LIFT), first[0])
    small = (share >= MIN_PARTICULAR_SHARE) & ~large
    interest = large & (lift >= MIN_MODERATE_LIFT) | small & (lift >= MIN_PARTICULAR_LIFT)
    others = [category for category in order if interest[category] and category != primary][
        : MAX_INTERESTS - 1
    ]
    moderate = [category for category in others if large[category]]
    particular = [category for category in others if not large[category]]
    popular = overall >= np.median(overall[overall > 0])
    minimal = [
        category
        for category in np.argsort(share - overall, kind="stable")
        if popular[category] and not large[category] and lift[category] < MAX_MINIMAL_LIFT
    ][: MAX_NAMED_CATEGORIES - 1 - len(others)]

    together, verb = BEHAVIOUR_WORDS[behaviour]
    strength = "primarily" if share[primary] == share.max() else "especially"
    if share[primary] >= MIN_OVERWHELMING_SHARE:
        strength = "overwhelmingly"
    title = name_categories([names[category] for category in (primary, *moderate)])
    # A name with a comma would look like several names in an enumeration.
    names = [f'"{name}"' if "," in name else name for name in names]
    text = f"{together} by people who {strength} {verb} {names[primary]}"
    if moderate:
        text += f", followed by {names[moderate.pop(0)]}"
    if moderate:
        text += f", with moderate interest in {_enumerate(moderate, names)}"
    if particular:
        text += f"{' and' if moderate else ', with'} a particular interest in {_enumerate(particular, names)}"
    if minimal:
        text += f", while showing minimal engagement in {_enumerate(minimal, names)}"
    return text + ".", title


def _enumerate(categories: Sequence[int], names: Sequence[str]) -> str:
    *most, last = (names[category] for category in categories)
    return f"{', '.join(most)} and {last}" if most else last
