"""Tables compare the tested network with each rival on the same cases."""

import numpy as np
import pytest

from model.data.edge_table import EdgeTable
from model.evaluation.full_catalogue import CatalogueQueries
from model.evaluation.measurement import CatalogueResults
from model.evaluation.metrics import interval
from model.evaluation.significance import holm, sign_flip_p
from model.evaluation.tables import Judge, popularity_buckets

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
