"""What is mostly asked, answered ahead: the best of every item, under each relation, exactly.

    answers/
      003.AVG.npy   for each catalogue row the 100 best others: `row` (int32), `score` (float32), best first

A row holds fewer where there are no more, or where changes were folded in; then -1 fills it up. Scores are not
rounded to half precision: what is put in later is merged by score, and must find its place.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import faiss
import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from model.records import Similarity

from .vectors import ROUNDING, Neighbours, VectorIndex, cosines

FOLDER = "answers"
"""Where the tables lie within an index."""

DEPTH = 100
"""Answers kept for each item; a question may ask for as many."""

MARGIN = 8
"""So many more are looked at, so that the cut seldom falls between equals."""

BLOCK = 1_024
"""Items asked about together."""

_ENTRY = np.dtype([("row", "<i4"), ("score", "<f4")])


class Answers:
    """The tables of a generation, mapped into memory when first asked; safe to use from many threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        found = sorted(path.name for path in folder.glob("*.npy")) if folder.is_dir() else []
        self._names = frozenset(found)
        self._opened: dict[str, ndarray] = {}
        self._opening = Lock()

    @property
    def similarities(self) -> tuple[Similarity, ...]:
        """Those that have tables."""
        return tuple(one for one in Similarity if _name(0, one) in self._names)

    def best(
        self, relation: int, similarity: Similarity, row: int, k: int, without: frozenset[int] = frozenset()
    ) -> Neighbours | None:
        """The `k` best of an item of the generation but for the rows in `without`, or all there are.

        None where the table does not say: there is none, or it does not go so deep.
        """
        name = _name(relation, similarity)
        if name not in self._names:
            return None
        table = self._table(name)
        entries = table[row]
        rows, scores = entries["row"], entries["score"]
        if without:
            kept = [place for place, one in enumerate(rows.tolist()) if one not in without]
            rows, scores = rows[kept], scores[kept]
        there = int((rows[:k] >= 0).sum())
        whole = table.shape[1] >= len(table) - 1 and (not len(rows) or rows[-1] >= 0)
        if there < k and not whole:
            return None
        return Neighbours(rows[:there].astype(np.int64), np.asarray(scores[:there]))

    def _table(self, name: str) -> ndarray:
        if name not in self._opened:
            with self._opening:
                if name not in self._opened:
                    self._opened[name] = np.load(self._folder / name, mmap_mode="r", allow_pickle=False)
        return self._opened[name]


def write_answers(
    folder: Path, vectors: VectorIndex, relations: int, similarities: Sequence[Similarity]
) -> None:
    """Write the tables of some similarities under all relations into `folder`, which is made if there are any."""
    if similarities:
        folder.mkdir()
    for similarity in similarities:
        for relation in range(relations):
            np.save(folder / _name(relation, similarity), _table(vectors, relation, similarity))


def _table(vectors: VectorIndex, relation: int, similarity: Similarity) -> ndarray:
    count = vectors.count
    depth = max(min(DEPTH, count - 1), 0)
    table = np.full((count, depth), np.array((-1, 0), _ENTRY))
    query_view, target_view = similarity.views
    every = range(count)
    targets = vectors.vectors(relation, target_view, every)
    queries = targets if query_view == target_view else vectors.vectors(relation, query_view, every)
    everything = np.ones(count, bool)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    try:
        for start in range(0, count if depth else 0, BLOCK):
            asked = queries[start : start + BLOCK]
            scores, rows = faiss.knn(
                asked, targets, min(depth + 1 + MARGIN, count), metric=faiss.METRIC_INNER_PRODUCT
            )
            for place, query in enumerate(asked):
                row = start + place
                found = _best(query, row, rows[place], scores[place], targets, depth)
                if found is None:  # too many equals for the margin
                    allowed = everything.copy()
                    allowed[row] = False
                    found = vectors.search(relation, target_view, query, depth, allowed)
                table[row]["row"], table[row]["score"] = found.rows, found.scores
    finally:
        faiss.omp_set_num_threads(threads)
    return table


def _best(
    query: Float32[ndarray, " dim"],
    row: int,
    rows: Int64[ndarray, " n"],
    scores: Float32[ndarray, " n"],
    targets: Float32[ndarray, "items dim"],
    depth: int,
) -> Neighbours | None:
    """The best of those found but for `row` itself, scored exactly; None if one not found may be among them."""
    others: Bool[ndarray, " n"] = rows != row
    rows, rough = rows[others], scores[others]
    if len(rows) < len(targets) - 1 and not rough[-1] < rough[depth - 1] - ROUNDING:
        return None
    return Neighbours.best(rows, cosines(targets[rows], query), depth)


def _name(relation: int, similarity: Similarity) -> str:
    return f"{relation:03d}.{similarity}.npy"
