"""The planner's decisions, by value, and the check of recall that permits the ANN index."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np
import pytest

from indexes.vectors.contract import Filtered, FilterRecall, Neighbours
from indexes.vectors.exact_scan import BLOCK_ROWS, near_rows
from indexes.vectors.filter_plan import SCAN, FilterPlan, candidates_needed, plan_filter
from indexes.vectors.filter_recall import FilterChoice, measure_filters

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("allowed", "items", "k", "least_share", "plan"),
    [
        (100, MILLION, 10, 0.05, SCAN),  # fewer than the least share
        (10_000, MILLION, 10, 0.0, SCAN),  # 2,095 candidates are too many
        (25_000, MILLION, 10, 0.0, SCAN),  # 838 candidates cost as much as 26,816 vectors
        (50_000, MILLION, 10, 0.05, FilterPlan("ann", 419)),
        (49_999, MILLION, 10, 0.05, SCAN),
        (100_000, MILLION, 10, 0.05, FilterPlan("ann", 210)),
        (500_000, MILLION, 10, 0.05, FilterPlan("ann", 42)),
        (MILLION, MILLION, 10, 0.05, FilterPlan("ann", 21)),
        (500_000, MILLION, 100, 0.05, FilterPlan("ann", 263)),
        (100_000, MILLION, 100, 0.05, SCAN),  # 1,312 candidates are too many
        (500_000, MILLION, 10, None, SCAN),  # the recall was not sufficient, or was not measured
        (10_000, 100_000, 10, 0.05, FilterPlan("ann", 210)),
        (5_000, 100_000, 10, 0.05, SCAN),
        (0, MILLION, 10, 0.0, SCAN),
        (0, 0, 10, 0.0, SCAN),
    ],
)
def test_plan_takes_the_cheapest_way_that_reaches_the_recall(
    allowed: int, items: int, k: int, least_share: float | None, plan: FilterPlan
) -> None:
    assert plan_filter(allowed, items, k, least_share) == plan


@pytest.mark.parametrize(
    ("allowed", "k", "least_share", "plan"),
    [
        (500_000, 10, None, FilterPlan("codes", 16_384)),
        (500_000, 1, None, FilterPlan("codes", 16_384)),
        (500_000, 256, None, FilterPlan("codes", 16_384)),
        (500_000, 300, None, FilterPlan("codes", 19_200)),
        (500_000, 10, 0.05, FilterPlan("ann", 42)),  # the ANN index reads less
        (49_999, 10, 0.05, FilterPlan("codes", 3_124)),
        (100_000, 100, 0.05, FilterPlan("codes", 6_250)),
        (40_000, 10, None, FilterPlan("codes", 2_500)),
        (39_999, 10, None, SCAN),  # an exact scan is fast enough
        (40_000, 251, None, SCAN),  # scoring 2,510 candidates would take as long as the scan
        (40_000, 250, None, FilterPlan("codes", 2_500)),
    ],
)
def test_plan_takes_codes_if_the_ann_index_does_not_suit_and_a_scan_is_long(
    allowed: int, k: int, least_share: float | None, plan: FilterPlan
) -> None:
    assert plan_filter(allowed, MILLION, k, least_share, coded=True) == plan


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_enough_candidates_are_taken_for_random_filters(share: float, k: int) -> None:
    depth = candidates_needed(int(share * MILLION), MILLION, k)
    passed = np.random.default_rng(0).binomial(depth, share, 10_000)
    assert (passed > k).mean() > 0.98


@dataclass
class Vectors:
    """Vectors whose ANN index loses the best `lost` results of every filtered search below the share `until`."""

    lost: int
    until: float
    exact: Any = field(default_factory=lambda: faiss.IndexFlatIP(8))

    def __post_init__(self) -> None:
        self.exact.add(np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32))

    def scan(self, query: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Neighbours:
        assert allowed is not None
        rows = np.flatnonzero(allowed)
        scores = self.exact.reconstruct_n(0, 400)[rows] @ query
        return Neighbours.best(rows, scores, k)

    def search_allowed(self, query: np.ndarray, k: int, allowed: np.ndarray) -> Neighbours:
        lost = self.lost if allowed.mean() < self.until else 0
        found = self.scan(query, k + lost, allowed)
        return Neighbours(found.rows[lost:], found.scores[lost:], Filtered(int(allowed.sum()), ("ann",)))


@pytest.mark.parametrize(
    ("lost", "until", "least_share", "measured"),
    [(0, 1.0, 0.05, 4), (1, 1.0, None, 1), (2, 0.2, 0.25, 3), (1, 0.07, 0.1, 4)],
)
def test_least_share_is_the_last_before_a_filter_misses_the_recall(
    lost: int, until: float, least_share: float | None, measured: int
) -> None:
    vectors = Vectors(lost, until)
    asked = [(row, vectors.exact.reconstruct(row)) for row in range(30)]
    with ThreadPoolExecutor(2) as pool:
        found = measure_filters(lambda _: vectors, [16, 32], asked, 0.95, pool)
    assert found.least_filter_share == least_share
    if least_share is None:
        assert found == FilterChoice((), None, None)
        return
    assert (found.filter_effort, len(found.filters)) == (16, 2 * measured)
    assert found.filters[0] == FilterRecall(share=0.5, clustered=False, recall_at_10=1.0, scanned=0.0)
    assert [one.clustered for one in found.filters[:2]] == [False, True]


def test_search_parameter_for_filters_is_the_first_that_reaches_the_recall_for_most() -> None:
    tried = {16: Vectors(1, 1.0), 32: Vectors(1, 0.2), 64: Vectors(0, 1.0), 128: Vectors(0, 1.0)}
    asked = [(row, tried[16].exact.reconstruct(row)) for row in range(30)]
    for parameters, chosen in (([16, 32, 64, 128], (64, 0.05)), ([16, 32], (32, 0.25)), ([16], (None, None))):
        with ThreadPoolExecutor(2) as pool:
            found = measure_filters(tried.__getitem__, parameters, asked, 0.95, pool)
        assert (found.filter_effort, found.least_filter_share) == chosen


@pytest.mark.parametrize("allowed_rows", [1, 30, BLOCK_ROWS, BLOCK_ROWS + 1, 3_000, 11_000, 12_000])
@pytest.mark.parametrize("wanted", [1, 10, 2_000])
def test_copied_rows_and_skipped_rows_give_the_same_neighbours(allowed_rows: int, wanted: int) -> None:
    draw = np.random.default_rng(allowed_rows)
    vectors = draw.standard_normal((12_000, 16)).astype(np.float16).astype(np.float32)
    exact = faiss.IndexScalarQuantizer(16, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    exact.add(vectors)
    allowed = np.zeros(12_000, bool)
    allowed[draw.permutation(12_000)[:allowed_rows]] = True
    wanted = min(wanted, allowed_rows)
    for query in vectors[:5] / 8:
        found = near_rows(exact, vectors.astype(np.float16), query, wanted, allowed_rows, allowed)
        best = Neighbours.best(np.flatnonzero(allowed), vectors[allowed] @ query, wanted)
        assert allowed[found.rows].all()
        assert set(best.rows.tolist()) <= set(found.rows.tolist())


def test_scan_copies_only_blocks_of_vectors_that_begin_at_an_odd_address() -> None:
    exact = faiss.IndexScalarQuantizer(16, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    exact.add(np.ones((200_000, 16), np.float32))
    halves = np.zeros(200_000 * 32 + 1, np.uint8)[1:].view(np.float16).reshape(-1, 16)
    allowed = np.arange(200_000) < 100
    tracemalloc.start()
    near_rows(exact, halves, np.ones(16, np.float32), 5, 100, allowed)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < halves.nbytes / 4
