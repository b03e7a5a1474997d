"""Recall of filtered searches that use an ANN index or codes, measured when the index is built."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from .ann_index import VECTORS_PER_CHUNK
from .code_scan import CodeScan
from .contract import FilterRecall, Neighbours
from .filter_plan import MEASURED_SHARES

FILTER_QUERIES = 25
"""Number of queries for each filter. Each takes two searches, one of which scans the allowed items."""

Asked = tuple[int, Float32[ndarray, " dim"]]
"""Row of an item, and its vector."""


class FilterChoice(NamedTuple):
    """The fields of `FileReport` about filters; empty or None if the recall was sufficient for no filter."""

    filters: tuple[FilterRecall, ...]
    least_filter_share: float | None
    filter_effort: int | None


CODE_SHARE = 0.5
"""Share of allowed items at which the recall of codes is measured."""

CODE_ERRORS = 2_000
"""Number of items whose estimates are compared with their cosines, for each query."""

MAX_SCANNED_SHARE = 0.5
"""Maximum share of the searches that scan because codes have too many candidates; otherwise codes are not worth it."""


class CodeChoice(NamedTuple):
    """The fields of `FileReport` about codes; None if codes are not worth it."""

    code_margin: float | None
    code_recall_at_10: float | None


class Searched(Protocol):
    """Opened vector file whose filtered searches use its ANN index whenever the plan allows it."""

    @property
    def exact(self) -> Any:
        """Flat index of the vectors."""

    def scan(
        self, query: Float32[ndarray, " dim"], k: int, allowed: Bool[ndarray, " count"] | None = None
    ) -> Neighbours:
        """Find the `k` nearest of the allowed items exactly."""

    def search_allowed(
        self, query: Float32[ndarray, " dim"], k: int, allowed: Bool[ndarray, " count"]
    ) -> Neighbours:
        """Find the `k` nearest of the allowed items."""


def measure_filters(
    searched: Callable[[int], Searched],
    search_parameters: Sequence[int],
    asked: Sequence[Asked],
    min_recall: float,
    pool: Executor,
) -> FilterChoice:
    """Choose a search parameter for filtered searches: the one that reaches `min_recall` for most of the filters.

    `searched` returns the vectors with a search parameter. Each of the ascending `search_parameters` is tried with
    filters that allow fewer and fewer items, until one does not reach `min_recall`. The first is taken that reaches it
    for all filters, or for more of them than any other. The queries are searched in `pool`.
    """
    queries = asked[:: max(len(asked) // FILTER_QUERIES, 1)][:FILTER_QUERIES]
    masks = list(_masks(searched(search_parameters[0]).exact, queries[0][1]))
    best = FilterChoice((), None, None)
    for search_parameter in search_parameters:
        measured: list[FilterRecall] = []
        least_share = None
        for share, some in masks:
            found = [
                _measure(searched(search_parameter), queries, share, clustered, mask, pool)
                for clustered, mask in some
            ]
            measured += found
            if min(one.recall_at_10 for one in found) < min_recall:
                break
            least_share = share
        if least_share is not None and (
            best.least_filter_share is None or least_share < best.least_filter_share
        ):
            best = FilterChoice(tuple(measured), least_share, search_parameter)
        if least_share == MEASURED_SHARES[-1]:
            break
    return best


def measure_codes(
    codes: CodeScan,
    searched: Callable[[float], Searched],
    asked: Sequence[Asked],
    min_recall: float,
    pool: Executor,
) -> CodeChoice:
    """Choose the margin of codes: the share `min_recall` of the cosines is underestimated by no more.

    `searched` returns the vectors with codes and a margin, but without ANN index. The recall is measured with filters
    that allow items drawn at random, and the items nearest to one of the queries.
    """
    queries = asked[:: max(len(asked) // FILTER_QUERIES, 1)][:FILTER_QUERIES]
    exact = searched(0.0).exact
    rows = np.sort(
        np.random.default_rng(2).choice(exact.ntotal, min(CODE_ERRORS, exact.ntotal), replace=False)
    )
    drawn = np.zeros(exact.ntotal, bool)
    drawn[rows] = True
    vectors, errors = exact.reconstruct_batch(rows), []
    for _, query in queries:
        found, estimates = codes.nearest(query, len(rows), drawn, len(rows))
        errors.append(vectors[np.searchsorted(rows, found)] @ query - estimates)
    margin = max(float(np.quantile(np.concatenate(errors), min_recall)), 0.0)
    measured = [
        _measure(searched(margin), queries, share, clustered, mask, pool)
        for share, some in _masks(exact, queries[0][1])
        for clustered, mask in some
        if share == CODE_SHARE
    ]
    recall = min(one.recall_at_10 for one in measured)
    if recall < min_recall or max(one.scanned for one in measured) > MAX_SCANNED_SHARE:
        return CodeChoice(None, None)
    return CodeChoice(round(margin, 4), recall)


def _masks(
    exact: Any, direction: Float32[ndarray, " dim"]
) -> Iterator[tuple[float, list[tuple[bool, Bool[ndarray, " count"]]]]]:
    """Yield for each share a mask drawn at random, and one of the items nearest to `direction`."""
    drawn = np.random.default_rng(1).random(exact.ntotal)
    along = np.concatenate(
        [
            exact.reconstruct_n(start, min(VECTORS_PER_CHUNK, exact.ntotal - start)) @ direction
            for start in range(0, exact.ntotal, VECTORS_PER_CHUNK)
        ]
    )
    for share in MEASURED_SHARES:
        yield share, [(False, drawn < share), (True, along >= np.quantile(along, 1 - share))]


def _measure(
    searched: Searched,
    queries: Sequence[Asked],
    share: float,
    clustered: bool,
    mask: Bool[ndarray, " count"],
    pool: Executor,
) -> FilterRecall:
    def recall(asked: Asked) -> float | None:
        """Return the recall of one search; None if it scanned, which is exact."""
        row, query = asked
        allowed = mask.copy()
        allowed[row] = False
        found = searched.search_allowed(query, 10, allowed)
        assert found.filtered is not None, "a search among allowed items says how it was made"
        if found.filtered.methods == ("scan",):
            return None
        # Compare scores, not rows, because any of several equal items is a correct result.
        tenth = searched.scan(query, 10, allowed).scores[-1]
        return float((found.scores >= tenth).mean())

    recalls = list(pool.map(recall, queries))
    return FilterRecall(
        share=share,
        clustered=clustered,
        recall_at_10=round(float(np.mean([1.0 if one is None else one for one in recalls])), 4),
        scanned=round(recalls.count(None) / len(queries), 4),
    )
