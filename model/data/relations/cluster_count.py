"""Number of user clusters for `--clusters auto`: the one whose clusters are most distinct."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

MAX_AUTO_CLUSTERS = 20
"""Largest number of clusters that is tried. The paper uses 8 or 10."""

SILHOUETTE_USERS = 2_000
"""Number of users in the sample for the silhouette, whose cost grows with their square."""

TIE = 0.005
"""Difference of mean silhouettes that counts as none, so that chance does not add clusters."""


def cluster_count(tastes: Float[ndarray, "users categories"], seed: int) -> int:
    """Return the number of clusters, from 2 to `MAX_AUTO_CLUSTERS`, with the highest mean silhouette.

    The silhouette (Rousseeuw 1987) of a user compares the mean distance to the users of the own cluster with that to
    the users of the nearest other cluster. The fewest clusters within `TIE` of the highest mean win. At most
    `SILHOUETTE_USERS` users take part, a random sample. If all users are alike, the answer is 1.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    if len(tastes) > SILHOUETTE_USERS:
        sample = np.random.default_rng(seed).choice(len(tastes), SILHOUETTE_USERS, replace=False)
        tastes = tastes[np.sort(sample)]
    distinct = len(np.unique(tastes, axis=0))
    counts = range(2, min(MAX_AUTO_CLUSTERS, distinct, len(tastes) - 1) + 1)
    if not counts:
        return distinct
    scores = np.array(
        [
            silhouette_score(tastes, KMeans(count, n_init=10, random_state=seed).fit_predict(tastes))
            for count in counts
        ]
    )
    return counts[int(np.argmax(scores >= scores.max() - TIE))]
