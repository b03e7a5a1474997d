"""Vector files of one relation and view: the flat index, its ANN index if there is one, and searches in both."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from indexes.config import IndexKind
from model.similarity import View

from .ann_index import ANN_INDEXES, AnnIndex, HnswIndex, read_index
from .code_scan import CodeScan
from .contract import (
    ROUNDING,
    FileReport,
    Filtered,
    Neighbours,
    cosines,
    file_name,
)
from .exact_scan import near_rows
from .filter_plan import MAX_ANN_DEPTH, SCAN, plan_filter
from .gpu_vectors import CardTable
from .half_vectors import HalfVectors

CANDIDATES_PER_RESULT = 10
"""Number of candidates of codes that are scored for each result before it is known how many are needed."""

CODES_SUFFIX = ".codes.faiss"
"""Suffix of the file of codes for filtered searches."""


@dataclass(frozen=True)
class VectorFile:
    """Opened vector files of one relation and view."""

    exact: Any
    stored: HalfVectors
    ann: AnnIndex | None
    search_parameter: int = 0
    least_filter_share: float | None = None
    filter_effort: int = 0
    codes: CodeScan | None = None
    code_margin: float = 0.0

    def scan(
        self,
        query: Float32[ndarray, " dim"],
        k: int,
        allowed: Bool[ndarray, " count"] | None = None,
        table: CardTable | None = None,
    ) -> Neighbours:
        """Find the `k` nearest of all items, or of the allowed items, exactly; with the copy `table` if possible."""
        few = self.exact.ntotal if allowed is None else int(np.count_nonzero(allowed))
        filtered = None if allowed is None else Filtered(few, ("scan",))
        wanted = min(k, few)
        if wanted == 0:
            return Neighbours(np.empty(0, np.int64), np.empty(0, np.float32), filtered)
        rough = None if table is None else table.near(query, wanted, allowed)
        if rough is None:
            rough = near_rows(self.exact, self.stored.halves, query, wanted, few, allowed)
        return self._scored(query, rough.rows, wanted, filtered)

    def search_allowed(
        self,
        query: Float32[ndarray, " dim"],
        k: int,
        allowed: Bool[ndarray, " count"],
        table: CardTable | None = None,
    ) -> Neighbours:
        """Find the `k` nearest of the allowed items as `plan_filter` decides."""
        few, items = int(np.count_nonzero(allowed)), self.exact.ntotal
        coded = self.codes is not None and table is None
        plan = SCAN
        if self.ann is not None and (table is None or isinstance(self.ann, HnswIndex)):
            plan = plan_filter(few, items, k, self.least_filter_share, coded)
            if plan.method == "ann":
                rows, scores = self.ann.candidates(query, plan.depth, self.filter_effort)
                kept = allowed[rows]
                if (near := _nearest(rows[kept], scores[kept], k)) is not None:
                    return self._scored(query, near, k, Filtered(few, ("ann",)))
                plan = plan_filter(few, items, k, None, coded)
        if plan.method == "codes" and (found := self._coded(query, k, allowed, few, plan.depth)) is not None:
            return found
        return self.scan(query, k, allowed, table)

    def _coded(
        self,
        query: Float32[ndarray, " dim"],
        k: int,
        allowed: Bool[ndarray, " count"],
        few: int,
        depth: int,
    ) -> Neighbours | None:
        """Find the `k` nearest of `few` allowed items among at most `depth` candidates of codes.

        The result is None if further items may be as near: if the estimate of the last candidate is not below the k-th
        result by more than `code_margin`.
        """
        assert self.codes is not None, "only codes have a number of candidates"
        rows, estimates = self.codes.nearest(query, depth, allowed, few)
        count = CANDIDATES_PER_RESULT * max(k, 10)
        scores = self._cosines(rows[:count], query)
        least = np.partition(scores, -k)[-k] - self.code_margin
        # Equal items have equal estimates, and all of them are scored or none.
        enough = int(np.searchsorted(-estimates, -min(least, estimates[len(scores) - 1]), side="right"))
        if enough == len(rows):
            return None
        scores = np.concatenate([scores, self._cosines(rows[count:enough], query)])
        return Neighbours.best(rows[:enough], scores, k, Filtered(few, ("codes",)))

    def _cosines(self, rows: Int64[ndarray, " n"], query: Float32[ndarray, " dim"]) -> Float32[ndarray, " n"]:
        """Score rows that may be on disk."""
        self.stored.read_ahead(rows)
        return cosines(self.stored.take(rows), query)

    def search(self, query: Float32[ndarray, " dim"], k: int, table: CardTable | None = None) -> Neighbours:
        """Find approximately the `k` nearest of all items; exactly with the copy `table`, except in a graph.

        The candidates must include every item that ties with the k-th. If the ANN index cannot return them all, the
        search falls back to a scan.
        """
        if self.ann is not None and (table is None or isinstance(self.ann, HnswIndex)):
            depth = 2 * k
            while depth <= MAX_ANN_DEPTH:
                rows, scores = self.ann.candidates(query, depth, self.search_parameter)
                if len(rows) <= k:
                    break
                if (near := _nearest(rows, scores, k)) is not None:
                    return self._scored(query, near, k)
                depth *= 2
        return self.scan(query, k, table=table)

    def _scored(
        self,
        query: Float32[ndarray, " dim"],
        rows: Int64[ndarray, " n"],
        k: int,
        filtered: Filtered | None = None,
    ) -> Neighbours:
        """Score the given rows exactly and return the `k` best."""
        return Neighbours.best(rows, cosines(self.stored.take(rows), query), k, filtered)


def _nearest(
    rows: Int64[ndarray, " n"], scores: Float32[ndarray, " n"], k: int
) -> Int64[ndarray, " near"] | None:
    """Return the `k` best of the candidates, and those that tie with the last; None if further ones could tie."""
    if len(rows) <= k or scores[-1] >= scores[k - 1] - ROUNDING:
        return None
    near: ndarray = rows[scores >= scores[k - 1] - ROUNDING]
    return near


def open_vector_file(
    folder: Path, relation: int, view: View, report: FileReport, exact: bool = False
) -> VectorFile:
    """Open the vector files of a relation and view; without ANN index and codes if `exact`."""
    path = folder / f"{file_name(relation, view)}.faiss"
    vectors = read_index(path, faiss.IO_FLAG_MMAP_IFC)
    stored = HalfVectors(vectors)
    if exact or report.kind == "flat":
        return VectorFile(vectors, stored, None)
    ann = ANN_INDEXES[report.kind].open(path.with_suffix(f".{ann_ending(report.kind)}"), vectors)
    effort, filter_effort = report.effort or 0, report.filter_effort or 0
    codes = None if report.code_margin is None else CodeScan.open(path.with_suffix(CODES_SUFFIX))
    return VectorFile(
        vectors,
        stored,
        ann,
        effort,
        report.least_filter_share,
        filter_effort,
        codes,
        report.code_margin or 0.0,
    )


def ann_ending(kind: IndexKind) -> str:
    """Return the suffix of the file that a search reads first."""
    return "faiss" if kind == "flat" else f"{kind}.faiss"
