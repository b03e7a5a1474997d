"""Clusters of users, and the descriptions that are generated from their statistics."""

import re
from collections.abc import Sequence

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy import ndarray

from model.config import Behaviour
from model.data.relations.clusters import InteractionLog, describe_clusters, slug, user_clusters

DESCRIPTION = re.compile(
    r"Co-purchased by people who (?P<strength>overwhelmingly|primarily|especially) buy (?P<primary>\w+)"
    r"(, followed by (?P<secondary>\w+))?"
    r"(, with moderate interest in (?P<moderate>[\w, ]+?))?"
    r"((, with| and) a particular interest in (?P<particular>[\w, ]+?))?"
    r"(, while showing minimal engagement in (?P<minimal>[\w, ]+?))?"
    r"\.( \(group \d+\))?"
)
"""Form of every description, if the names of categories are single words."""

COUNTS = arrays(
    np.int64,
    st.tuples(st.integers(1, 5), st.integers(2, 13)),
    elements=st.sampled_from([0, 1, 2, 5, 20, 40, 100]),
).filter(lambda counts: (counts.sum(axis=1) > 0).all())
"""Numbers of interactions per cluster and category."""


def log_of(shares: Sequence[Sequence[int]], categories: Sequence[str]) -> InteractionLog:
    """Return a log in which `shares[u, c]` is the number of items of category c that user u had."""
    taken = sp.csr_array(np.array(shares, dtype=np.float64))
    return InteractionLog(taken, sp.csr_array(np.eye(len(categories))), tuple(categories))


def described(
    shares: Sequence[Sequence[int]], categories: Sequence[str], behaviour: Behaviour = "buy"
) -> list[tuple[str, str]]:
    found = describe_clusters(log_of(shares, categories), np.arange(len(shares)), behaviour)
    return [(relation.relation_id, relation.description) for relation in found]


def names_of(shares: Sequence[Sequence[int]], categories: Sequence[str]) -> list[str]:
    return [one.name for one in describe_clusters(log_of(shares, categories), np.arange(len(shares)), "buy")]


def test_description_names_primary_secondary_moderate_and_minimal_interests() -> None:
    shares = [[50, 20, 15, 9, 4, 2], [0, 0, 0, 0, 0, 100]]
    names = ("Feeding", "Nursery", "Toys", "Home", "Music", "Tools")
    assert described(shares, names)[0] == (
        "feeding-nursery",
        "Co-purchased by people who primarily buy Feeding, followed by Nursery, with moderate interest in Toys "
        "and Home and a particular interest in Music, while showing minimal engagement in Tools.",
    )


def test_name_for_people_has_the_first_two_categories_of_the_description() -> None:
    shares = [[50, 20, 15, 9, 4, 2], [0, 0, 0, 0, 0, 100]]
    categories = ("Feeding", "Nursery, Cots", "Toys", "Home", "Music", "Tools")
    assert names_of(shares, categories) == ["Feeding, then Nursery, Cots", "Tools"]


def test_name_for_people_leaves_out_a_category_of_minimal_engagement_that_the_id_has() -> None:
    shares = [[97, 3], [0, 100]]
    assert [name for name, _ in described(shares, ("Jazz", "Rock"))] == ["jazz-rock", "rock"]
    assert names_of(shares, ("Jazz", "Rock")) == ["Jazz", "Rock"]


def test_clusters_of_one_taste_have_names_with_their_numbers() -> None:
    assert names_of([[3, 1]] * 3, ("Tea", "Cake")) == [
        "Tea, then Cake",
        "Tea, then Cake (group 2)",
        "Tea, then Cake (group 3)",
    ]


def test_a_name_with_a_comma_is_quoted_in_a_description() -> None:
    shares = [[60, 30, 10], [0, 0, 100]]
    assert described(shares, ("Toys, Games", "Mystery, Crime", "Jazz"))[0] == (
        "toys-games-mystery-crime",
        'Co-purchased by people who primarily buy "Toys, Games", followed by "Mystery, Crime".',
    )


def test_description_calls_a_dominant_interest_overwhelming() -> None:
    shares = [[97, 3], [0, 100]]
    assert described(shares, ("Jazz", "Rock"), "listen to")[0] == (
        "jazz-rock",
        "Co-listened by people who overwhelmingly listen to Jazz, while showing minimal engagement in Rock.",
    )


def test_lift_distinguishes_clusters_with_the_same_top_category() -> None:
    # Drama has the largest raw share in both clusters, so it does not distinguish them.
    shares = [[60, 40, 0], [60, 0, 40]]
    found = described(shares, ("Drama", "Horror", "Romance"), "watch")
    assert [name for name, _ in found] == ["horror-drama", "romance-drama"]
    assert found[0][1] == (
        "Co-watched by people who especially watch Horror, followed by Drama, "
        "while showing minimal engagement in Romance."
    )


def named(text: str) -> tuple[str, dict[str, list[int]]]:
    """Return the word for the strength of the first interest, and the columns of the categories in each part."""
    match = DESCRIPTION.fullmatch(text)
    assert match, text
    parts = match.groupdict(default="")
    strength = parts.pop("strength")
    return strength, {
        part: ["ABCDEFGHIJKLM".index(name) for name in re.split(", | and ", names) if name]
        for part, names in parts.items()
    }


@given(COUNTS)
def test_every_part_of_a_description_is_true(counts: ndarray) -> None:
    share = counts / counts.sum(axis=1, keepdims=True)
    overall = counts.sum(axis=0) / counts.sum()
    lift = share / np.where(overall > 0, overall, 1)
    median = np.median(overall[overall > 0])
    for cluster, (_, text) in enumerate(described(counts.tolist(), "ABCDEFGHIJKLM"[: counts.shape[1]])):
        strength, parts = named(text)
        [primary] = parts["primary"]
        large = share[cluster] >= 0.05
        candidates = lift[cluster][large] if large.any() else lift[cluster]
        assert lift[cluster, primary] > 1 or candidates.max() <= 1 + 1e-9
        largest = share[cluster, primary] == share[cluster].max()
        assert {"primarily": largest, "especially": not largest}.get(strength, share[cluster, primary] >= 0.7)
        for category in parts["secondary"] + parts["moderate"]:
            assert share[cluster, category] >= 0.05
            assert lift[cluster, category] >= 0.9 - 1e-9
        for category in parts["particular"]:
            assert 0.01 <= share[cluster, category] < 0.05
            assert lift[cluster, category] >= 1.2 - 1e-9
        for category in parts["minimal"]:
            assert share[cluster, category] < 0.05
            assert lift[cluster, category] < 0.5 + 1e-9
            assert overall[category] >= median
        every = [category for part in parts.values() for category in part]
        assert len(set(every)) == len(every) <= 10


def test_minimal_engagement_begins_with_the_largest_difference_from_all_users() -> None:
    shares = [[90, 4, 1, 3, 2], [0, 20, 30, 40, 10]]
    assert described(shares, ("Jazz", "Rock", "Folk", "Pop", "Soul"))[0][1] == (
        "Co-purchased by people who overwhelmingly buy Jazz, while showing minimal engagement in Pop and Folk."
    )


def test_a_small_category_that_is_typical_of_the_cluster_is_a_particular_interest() -> None:
    shares = [[96, 4, 0], [96, 0, 4], [100, 0, 0]]
    texts = [text for _, text in described(shares, ("Drama", "Western", "Musical"), "watch")]
    assert texts[0] == (
        "Co-watched by people who overwhelmingly watch Drama, with a particular interest in Western, "
        "while showing minimal engagement in Musical."
    )


def test_clusters_with_equal_statistics_get_unique_ids_and_texts() -> None:
    found = described([[3, 1]] * 3, ("Tea", "Cake"))
    assert [name for name, _ in found] == ["tea-cake", "tea-cake-2", "tea-cake-3"]
    assert [text.removeprefix(found[0][1]) for _, text in found] == ["", " (group 2)", " (group 3)"]


@given(
    arrays(np.int64, st.tuples(st.integers(1, 6), st.just(4)), elements=st.integers(1, 3)),
    st.lists(st.text("ab -3é", min_size=1, max_size=3), min_size=4, max_size=4, unique=True),
)
def test_ids_and_texts_are_unique_and_ids_are_url_safe(shares: ndarray, categories: list[str]) -> None:
    found = described(shares.tolist(), categories)
    ids, texts = zip(*found, strict=True)
    assert len(set(ids)) == len(set(texts)) == len(shares)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in ids)


def test_no_cluster_gets_the_id_of_the_intra_sample_relation() -> None:
    assert described([[2, 1]], ("Same", "Item"))[0][0] != "same-item"


@pytest.mark.parametrize(
    ("name", "expected"), [("Pots & Pans", "pots-pans"), ("  Émile 3!", "mile-3"), ("漢字", "relation")]
)
def test_slug_is_lower_case_with_single_hyphens(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_clusters_users_by_category_shares() -> None:
    # The numbers of items differ widely, but only the shares of the categories matter.
    shares = [[9, 1], [90, 10], [8, 1], [1, 9], [10, 95], [0, 3]]
    membership = user_clusters(log_of(shares, ("Books", "Pans")), 2, seed=0)
    assert len(set(membership[:3])) == len(set(membership[3:])) == 1
    assert membership[0] != membership[3]


def test_creates_no_more_clusters_than_distinct_category_shares() -> None:
    log = log_of([[1, 0, 0]] * 5 + [[0, 1, 0]] * 5 + [[0, 0, 1]] * 5, ("Books", "Pans", "Tents"))
    found = describe_clusters(log, user_clusters(log, 5, seed=0), "buy")
    assert sorted(one.relation_id.split("-")[0] for one in found) == ["books", "pans", "tents"]


def test_rounding_errors_do_not_divide_users_of_one_taste() -> None:
    rng = np.random.default_rng(0)
    users, items = 90, 60
    taken = (rng.random((users, items)) < 0.2).astype(np.float64)
    taken[:, 0] = 1
    camp = np.arange(items) % 2 == np.arange(users)[:, None] % 2
    taken = np.where(camp, taken, 0)
    taken[0::2, 0] = taken[1::2, 1] = 1
    # Each item is a third of each of the three categories of its camp.
    categories = np.kron(np.eye(2), np.full((1, 3), 1 / 3))[np.arange(items) % 2]
    log = InteractionLog(sp.csr_array(taken), sp.csr_array(categories), tuple("abcdef"))
    for clusters in (2, 5):
        membership = user_clusters(log, clusters, seed=0)
        assert set(membership) == {0, 1}
        assert len(set(membership[0::2])) == len(set(membership[1::2])) == 1
