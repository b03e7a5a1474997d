"""Tables compare the tested network with each rival on the same cases."""

import numpy as np
import pytest

from model.data.edge_table import EdgeTable
from model.evaluation.full_catalogue import CatalogueQueries
from model.evaluation.measurement import CatalogueResults
from model.evaluation.metrics import interval
from model.evaluation.sampling import Queries
from model.evaluation.significance import holm, sign_flip_p
from model.evaluation.tables import Judge, chance_tests, popularity_buckets
from model.similarity import Similarity

CLUSTER = np.repeat(np.arange(40), 3)
RNG = np.random.default_rng(0)
VALUES = {"rcml": RNG.random(120) + 0.1, "blind": RNG.random(120), "random": RNG.random(120) - 0.3}


def judge(tested: str = "rcml") -> Judge:
    return Judge.of(tested, CLUSTER, seed=3)


def test_estimates_have_bootstrap_intervals_over_items() -> None:
    found = judge().estimates(VALUES)
    for name, values in VALUES.items():
        low, high = interval(values, CLUSTER, np.random.default_rng(3))
        assert found[name].value == pytest.approx(values.mean())
        assert (found[name].low, found[name].high) == pytest.approx((low, high))


def test_comparisons_are_paired_and_adjusted() -> None:
    found = judge().comparisons(VALUES)
    differences = np.stack([VALUES["rcml"] - VALUES[name] for name in ("blind", "random")], axis=1)
    p = sign_flip_p(differences, CLUSTER, np.random.default_rng(3))
    assert list(found) == ["blind", "random"]
    assert [one.p for one in found.values()] == p.tolist()
    assert [one.p_holm for one in found.values()] == holm(p).tolist()
    assert found["blind"].difference.value == pytest.approx(differences[:, 0].mean())
    assert found["blind"].difference.low < found["blind"].difference.value


def test_pairing_makes_a_constant_difference_certain() -> None:
    values = {"rcml": VALUES["blind"] + 0.01, "blind": VALUES["blind"]}
    found = judge().comparisons(values)["blind"]
    assert (found.difference.low, found.difference.high) == pytest.approx((0.01, 0.01))
    assert found.p == pytest.approx(1 / 10_001)


def test_without_rivals_there_are_no_comparisons() -> None:
    assert judge().comparisons({"rcml": VALUES["rcml"]}) == {}


def buckets(popularity: list[int], found: list[float]) -> list[tuple[int, int, int, float]]:
    """Return least, most, pairs and result of the buckets; item n + 1 is the partner of item n in a ring."""
    items = np.arange(len(popularity))
    edges = EdgeTable(np.roll(items, 1), items, np.zeros_like(items))
    queries = CatalogueQueries.of(edges, items, 99, np.random.default_rng(0))
    values = np.array(found)[queries.partner]
    results = CatalogueResults(*[values] * 6)
    return [
        (one.least, one.most, one.pairs, one.found_at_10["rcml"])
        for one in popularity_buckets({"rcml": results}, queries, np.array(popularity))
    ]


def test_partners_are_divided_into_three_buckets_by_popularity() -> None:
    assert buckets([9, 1, 2, 8, 5, 4], [1, 0, 0, 0.5, 1, 0]) == [
        (1, 2, 2, 0),
        (4, 5, 2, 0.5),
        (8, 9, 2, 0.75),
    ]


def test_equally_popular_partners_share_a_bucket() -> None:
    assert buckets([3, 3, 3, 3], [1, 0, 0, 0]) == [(3, 3, 4, 0.25)]
    assert buckets([1, 1, 1, 1, 1, 7], [0, 0, 0, 0, 0, 1]) == [(1, 1, 5, 0), (7, 7, 1, 1)]


def queries_of(items: int, each: int) -> Queries:
    """Return queries of `items` items; only the item of each query matters."""
    item = np.repeat(np.arange(items), each)
    return Queries(item, np.ones_like(item), np.zeros((len(item), 21), dtype=np.int64))


def test_chance_test_finds_a_network_above_and_one_at_chance() -> None:
    rng, queries = np.random.default_rng(8), queries_of(200, 2)
    hits = {
        Similarity.TT: (rng.random(400) < 0.5).astype(float),
        Similarity.II: np.full(400, 5 / 21),
        Similarity.AVG: (rng.random(400) < 5 / 21).astype(float),
    }
    found = chance_tests("rcml", hits, 5 / 21, queries, seed=3)
    assert found[Similarity.TT].p == pytest.approx(1 / 10_001)
    assert found[Similarity.TT].p_holm == pytest.approx(3 / 10_001)
    assert found[Similarity.TT].difference.value == pytest.approx(hits[Similarity.TT].mean() - 5 / 21)
    assert found[Similarity.II].p == 1.0
    assert found[Similarity.AVG].p > 0.05


def test_chance_test_is_seldom_wrong_at_chance() -> None:
    rng, queries = np.random.default_rng(9), queries_of(60, 3)
    found = [
        chance_tests(
            "rcml", {Similarity.AVG: (rng.random(180) < 5 / 21).astype(float)}, 5 / 21, queries, seed
        )
        for seed in range(100)
    ]
    assert 0.01 <= np.mean([one[Similarity.AVG].p <= 0.05 for one in found]) <= 0.1
