"""Number of clusters that is chosen from the data."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy import ndarray

from model.data.relations import cluster_count as counting
from model.data.relations.cluster_count import cluster_count
from model.data.relations.clusters import InteractionLog, user_clusters


def tastes_of(groups: int, users: int = 30, spread: float = 0.02) -> ndarray:
    """Return the tastes of users in equal groups; each group prefers a category of its own."""
    rng = np.random.default_rng(0)
    tastes = np.repeat(np.eye(groups), users, axis=0) + rng.uniform(0, spread, (groups * users, groups))
    return np.asarray(tastes / tastes.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("groups", [2, 3, 7])
def test_finds_the_number_of_planted_groups(groups: int) -> None:
    assert cluster_count(tastes_of(groups), seed=0) == groups


def test_finds_the_groups_in_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "SILHOUETTE_USERS", 60)
    assert cluster_count(tastes_of(4, users=200), seed=0) == 4


def test_tries_no_more_clusters_than_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MAX_AUTO_CLUSTERS", 3)
    assert cluster_count(tastes_of(5), seed=0) == 3


def test_users_who_are_alike_form_one_cluster() -> None:
    assert cluster_count(np.full((9, 2), 0.5), seed=0) == 1
    assert cluster_count(np.array([[1.0, 0.0], [0.0, 1.0]]), seed=0) == 2


def test_user_clusters_follow_the_chosen_number() -> None:
    taken = sp.csr_array(np.repeat(np.eye(3), 8, axis=0))
    log = InteractionLog(taken, sp.csr_array(np.eye(3)), ("Books", "Pans", "Tents"))
    found = user_clusters(log, "auto", seed=0)
    assert [len(set(found[start : start + 8].tolist())) for start in (0, 8, 16)] == [1, 1, 1]
    assert len(set(found.tolist())) == 3
