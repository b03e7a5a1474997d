"""Table of `python -m benchmarks.search --filters`: filters that allow few to all items, near a query or far from it.

Each query has filters of its own. The times are those of a search whose filter is a mask already: `SortedColumn` makes
one in less than a millisecond. The exact results come from products of matrices, so the table takes longest to search.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from benchmarks.rig.embeddings import VECTORS_PER_CHUNK, Embeddings
from benchmarks.rig.filters import FilterCase, FilteredItems
from benchmarks.rig.plain_faiss import VIEW, K, PlainFaiss
from benchmarks.rig.results import show
from indexes.vectors.contract import ROUNDING
from indexes.vectors.faiss_backend import FaissVectors

WARMING = 3
"""Number of searches before those that count, for each filter."""

QUERIES_AT_ONCE = 50
"""Number of queries whose scores of all items are in memory."""


def measure_filters(folder: Path, queries: int) -> list[dict[str, Any]]:
    """Measure searches of the first relation in `folder` with every filter, and return a row for each."""
    vectors = FaissVectors(folder)
    embeddings = Embeddings(0, vectors.dim)
    items = FilteredItems(embeddings, vectors.count)
    asked = embeddings.queries(queries)
    plain, draw = PlainFaiss(folder, vectors), Random(1)
    cases: list[FilterCase | None] = [*FilterCase.every(), None]
    measured: list[list[_Search]] = [[] for _ in cases]
    for start in range(0, queries, QUERIES_AT_ONCE):
        some = asked[start : start + QUERIES_AT_ONCE]
        scores = _scores(vectors, some)
        for case, searches in zip(cases, measured, strict=True):
            for number, (query, exact) in enumerate(zip(some, scores, strict=True)):
                allowed = np.ones(vectors.count, bool) if case is None else items.mask(case, query)
                for _ in range(WARMING if number == 0 else 0):
                    vectors.search(0, VIEW, query, K, allowed)
                    plain.search(0, query, allowed)
                searches.append(_Search(vectors, plain, query, allowed, exact, draw))
    return [_row(case, searches) for case, searches in zip(cases, measured, strict=True)]


class _Search:
    """One search with a filter in both ways: seconds, number of correct results, and how it was made.

    `cpu` are the seconds in which a search computed, without those in which it waited for a core.
    """

    def __init__(
        self,
        vectors: FaissVectors,
        plain: PlainFaiss,
        query: Float32[ndarray, " dim"],
        allowed: Bool[ndarray, " items"],
        exact: Float32[ndarray, " items"],
        draw: Random,
    ) -> None:
        best = exact[allowed]
        self.allowed = len(best)
        self.wanted = min(K, len(best))
        least = np.partition(best, -self.wanted)[-self.wanted] - ROUNDING
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self.found: dict[str, int] = {}
        for side in draw.sample(["ours", "faiss"], 2):
            computed = time.thread_time()  # a system call, at which another process may get the core
            started = time.perf_counter()
            if side == "ours":
                answer = vectors.search(0, VIEW, query, K, allowed)
                scores = answer.scores
            else:
                scores = plain.search(0, query, allowed)
            self.seconds[side] = time.perf_counter() - started
            self.cpu[side] = time.thread_time() - computed
            self.found[side] = int((scores >= least).sum())
        assert answer.filtered is not None, "a search among allowed items says how it was made"
        (self.method,) = answer.filtered.methods


def _scores(
    vectors: FaissVectors, queries: Float32[ndarray, "queries dim"]
) -> Float32[ndarray, "queries items"]:
    """Return the cosines of all items with each query, as one product of matrices for each chunk of the items."""
    scores = np.empty((len(queries), vectors.count), np.float32)
    for start in range(0, vectors.count, VECTORS_PER_CHUNK):
        rows = range(start, min(start + VECTORS_PER_CHUNK, vectors.count))
        scores[:, start : rows.stop] = queries @ vectors.vectors(0, VIEW, rows).T
    return scores


def _row(case: FilterCase | None, searches: Sequence[_Search]) -> dict[str, Any]:
    seconds = {side: 1e3 * np.array([one.seconds[side] for one in searches]) for side in ("ours", "faiss")}
    wanted = sum(one.wanted for one in searches)
    return {
        "share": 1.0 if case is None else case.share,
        "filter": "all" if case is None else case.kind,
        "place": "" if case is None else case.place,
        "allowed": round(float(np.mean([one.allowed for one in searches]))),
        "methods": dict(Counter(one.method for one in searches).most_common()),
        "recall_at_10": sum(one.found["ours"] for one in searches) / wanted,
        "p50_ms": float(np.median(seconds["ours"])),
        "p99_ms": float(np.quantile(seconds["ours"], 0.99)),
        "cpu_p99_ms": 1e3 * float(np.quantile([one.cpu["ours"] for one in searches], 0.99)),
        "faiss_recall_at_10": sum(one.found["faiss"] for one in searches) / wanted,
        "faiss_p50_ms": float(np.median(seconds["faiss"])),
        "faiss_p99_ms": float(np.quantile(seconds["faiss"], 0.99)),
        "faiss_cpu_p99_ms": 1e3 * float(np.quantile([one.cpu["faiss"] for one in searches], 0.99)),
    }


def show_filters(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows of `measure_filters`."""
    columns = ("filter", "allowed", "method", "recall", "p50 ms", "p99", "CPU p99", "FAISS", "p50", "p99")
    show(title, columns, [[*_cells(row)] for row in rows])


def _cells(row: dict[str, Any]) -> Iterator[str]:
    yield f"{100 * row['share']:g} % {row['filter']} {row['place']}"
    yield f"{row['allowed']:,}"
    yield ", ".join(f"{count} {method}" for method, count in row["methods"].items())
    yield f"{row['recall_at_10']:.4f}"
    yield from (f"{row[name]:.2f}" for name in ("p50_ms", "p99_ms", "cpu_p99_ms"))
    yield f"{row['faiss_recall_at_10']:.4f}"
    yield from (f"{row[name]:.2f}" for name in ("faiss_p50_ms", "faiss_p99_ms"))
