"""Computation of one table of precomputed answers: the best other items for every item under a relation.

Up to `MAX_EXACT_ITEMS` items, all pairs of items are multiplied in single precision, tile by tile. The best candidates
for each item are kept, and a new candidate must score above the worst of them. If GPUs hold the vectors, they find the
candidates instead. `cosines` scores the final candidates exactly, so the tables do not depend on the device.

For more items the work, which grows with the square of their number, would take hours without a GPU. If there is an ANN
index, every item is then searched for in it, like a query. The scores in the table are exact, but some of the best
items may be missing, as in the results of a search. `recall` measures how many.

Tables are carried over to the next generation. If items listed in a row were changed or deleted, the remaining entries
are still the best ones, in the same order. Only new items are therefore compared with all others. A row that has fewer
than half of its entries left is computed again.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import combinations, product
from threading import Lock

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from indexes.config import FILE_KINDS
from indexes.vectors.contract import ROUNDING, Neighbours, RoughNeighbours, VectorIndex, cosines, file_name
from model.similarity import Similarity

ANSWERS_PER_ITEM = 100
"""Number of answers stored for each item, which is also the largest `k` of a request."""

MAX_EXACT_ITEMS = 100_000
"""Number of items up to which tables are exact; beyond it, the ANN index finds the answers, if there is one."""

RECALL_ROWS = 100
"""Number of rows that are compared with exact answers to measure the recall of a table."""

TIE_MARGIN = 8
"""Number of candidates kept in addition to the answers, so that the cutoff rarely falls between equal scores."""

ITEMS_PER_TILE = 4_096
"""Number of items on each side of one matrix product."""

QUERIES_PER_SCAN = 256
"""Number of items for which GPUs find candidates at a time."""

CANDIDATES_PER_SCAN = 128
"""Minimum number of candidates that GPUs find for an item. To find fewer takes as long."""

ENTRY = np.dtype([("row", "<i4"), ("score", "<f4")])
"""One answer: the catalogue row of an item, and its score."""


class TableMaker:
    """Builder of the table of one relation and similarity. The table is exact unless `approximate` is true."""

    def __init__(self, vectors: VectorIndex, relation: int, similarity: Similarity) -> None:
        self._vectors, self._relation, self._similarity = vectors, relation, similarity
        self._query_view, self._target_view = similarity.views
        self.count = vectors.count
        self.depth = max(min(ANSWERS_PER_ITEM, self.count - 1), 0)
        kind = vectors.report[file_name(relation, self._target_view)].kind
        searchable = self.count > MAX_EXACT_ITEMS and kind in FILE_KINDS and kind != "flat"
        self.approximate = searchable and self._scanned(np.zeros(1, np.int64)) is None

    @cached_property
    def _targets(self) -> Float32[ndarray, "items dim"]:
        """Vectors of all items that may be answers."""
        return self._vectors.vectors(self._relation, self._target_view, range(self.count))

    @cached_property
    def _queries(self) -> Float32[ndarray, "items dim"]:
        """Vectors of all items as queries; the same array as `_targets` if the similarity has one view."""
        if self._query_view == self._target_view:
            return self._targets
        return self._vectors.vectors(self._relation, self._query_view, range(self.count))

    def table(self, rows: Int64[ndarray, " rows"]) -> ndarray:
        """Compute the answers for the items at `rows` from scratch; `rows` must be in ascending order."""
        table = _empty(len(rows), self.depth)
        if not self.depth:
            return table
        if self.approximate:
            for place, found in enumerate(self._found(rows)):
                table[place, : len(found.rows)]["row"] = found.rows
                table[place, : len(found.rows)]["score"] = found.scores
            return table
        best = self._scanned(rows) or self._best(rows)
        for place, row in enumerate(rows.tolist()):
            found = self._exact(row, best.rows[place], best.scores[place], best.error)
            table[place]["row"], table[place]["score"] = found.rows, found.scores
        return table

    def recall(self, table: ndarray) -> tuple[float, float]:
        """Measure the share of the 10 best items, and of all best items, that some rows of `table` contain.

        Scores are compared, not rows, because any of several equal items is a correct answer.
        """
        rows = np.random.default_rng(0).choice(self.count, min(RECALL_ROWS, self.count), replace=False)
        least = self._best_scores(np.sort(rows)) - ROUNDING
        known = table[np.sort(rows)]
        scores = np.where(known["row"] >= 0, known["score"], -np.inf)
        shares = [(scores[:, :k] >= least[:, [k - 1]]).mean() for k in (min(10, self.depth), self.depth)]
        return round(float(shares[0]), 4), round(float(shares[1]), 4)

    def _best_scores(self, rows: Int64[ndarray, " rows"]) -> Float32[ndarray, "rows depth"]:
        """Compute the scores of the best other items of each item at `rows`, best first, from all vectors.

        They differ from the cosines by at most `ROUNDING`. A search would not do: it may use the ANN index.
        """
        queries = self._vectors.vectors(self._relation, self._query_view, rows.tolist())
        best = np.full((len(rows), self.depth), -np.inf, np.float32)
        for start in range(0, self.count, ITEMS_PER_TILE):
            others = range(start, min(start + ITEMS_PER_TILE, self.count))
            scores = queries @ self._vectors.vectors(self._relation, self._target_view, others).T
            scores[rows[:, None] == np.asarray(others)] = -np.inf
            best = -np.partition(-np.hstack([best, scores]), self.depth - 1)[:, : self.depth]
        return -np.sort(-best)

    def _found(self, rows: Int64[ndarray, " rows"]) -> Iterator[Neighbours]:
        """Search for the best other items of each item at `rows`, in the ANN index."""

        def search(row: int) -> Neighbours:
            (query,) = self._vectors.vectors(self._relation, self._query_view, [row])
            dropped = frozenset({row})
            return self._vectors.search(self._relation, self._target_view, query, self.depth, dropped=dropped)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(rows), ITEMS_PER_TILE):
                yield from pool.map(search, rows[start : start + ITEMS_PER_TILE].tolist())

    def carried(self, old: ndarray, renumbered: Int64[ndarray, " before"]) -> ndarray:
        """Compute the answers for all items from the `old` table; for `renumbered`, see `PreviousAnswers`."""
        entries = old[renumbered >= 0]
        whole = (entries["row"] >= 0).sum(axis=1) == len(old) - 1  # rows that list all other items
        rows = np.where(entries["row"] < 0, -1, renumbered[entries["row"]])
        upwards = np.argsort(rows < 0, axis=1, kind="stable")
        rows = np.take_along_axis(rows, upwards, axis=1)
        scores = np.take_along_axis(entries["score"], upwards, axis=1)
        had = (rows >= 0).sum(axis=1)

        table = _empty(self.count, self.depth)
        width = min(self.depth, rows.shape[1])
        table[: len(rows), :width]["row"] = rows[:, :width]
        table[: len(rows), :width]["score"] = scores[:, :width]
        # An old item that the row did not list may rank directly after the last remaining entry. The rank of a new item
        # below this entry is therefore unknown, so only new items that score above it are inserted.
        last = np.full(len(rows), np.inf, np.float32)
        last[had > 0] = scores[had > 0, had[had > 0] - 1]
        last[whole] = -np.inf
        for place, new in self._newer(last):
            found = Neighbours.best(
                np.concatenate([rows[place, : had[place]], new.rows]),
                np.concatenate([scores[place, : had[place]], new.scores]),
                self.depth,
            )
            table[place, : len(found.rows)]["row"] = found.rows
            table[place, : len(found.rows)]["score"] = found.scores
        short = (table["row"] >= 0).sum(axis=1) < max(self.depth / 2, 1)
        short[: len(rows)] &= ~whole
        incomplete = np.flatnonzero(short)
        table[incomplete] = self.table(incomplete)
        return table

    def _newer(self, last: Float32[ndarray, " remaining"]) -> Iterator[tuple[int, Neighbours]]:
        """For each remaining item (rows 0, 1, ...), yield the new items that score above its `last` entry."""
        new = self._vectors.vectors(self._relation, self._target_view, range(len(last), self.count))
        step = max(ITEMS_PER_TILE**2 // max(len(new), 1), 1)
        for start in range(0, len(last), step):
            least = last[start : start + step, None] - ROUNDING
            rows = range(start, start + len(least))
            queries = self._vectors.vectors(self._relation, self._query_view, rows)
            near = queries @ new.T >= least
            for place in np.flatnonzero(near.any(axis=1)).tolist():
                columns = np.flatnonzero(near[place])
                scores = cosines(new[columns], queries[place])
                better = scores > last[start + place]
                if better.any():
                    yield start + place, Neighbours(len(last) + columns[better], scores[better])

    def _scanned(self, rows: Int64[ndarray, " rows"]) -> RoughNeighbours | None:
        """Find the same candidates as `_best`, and more, with `VectorIndex.scan`; None if it finds none."""
        k = min(max(self.depth + TIE_MARGIN + 1, CANDIDATES_PER_SCAN), self.count)
        parts = []
        for start in range(0, len(rows), QUERIES_PER_SCAN):
            asked = rows[start : start + QUERIES_PER_SCAN]
            queries = self._vectors.vectors(self._relation, self._query_view, asked.tolist())
            found = self._vectors.scan(self._relation, self._target_view, queries, k)
            if found is None:
                return None
            itself = found.rows == asked[:, None]
            itself[~itself.any(axis=1), -1] = True  # drop another candidate instead, the last
            parts.append(
                RoughNeighbours(
                    found.rows[~itself].reshape(len(asked), k - 1),
                    found.scores[~itself].reshape(len(asked), k - 1),
                    found.error,
                )
            )
        if not parts:
            return None
        return RoughNeighbours(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.scores for part in parts]),
            max(part.error for part in parts),
        )

    def _best(self, rows: Int64[ndarray, " rows"]) -> "_BestSoFar":
        """Find the candidates for the answers of the items at `rows`, without the items themselves."""
        best = _BestSoFar(len(rows), min(self.depth + TIE_MARGIN, self.count - 1))
        tiles = [slice(start, start + ITEMS_PER_TILE) for start in range(0, self.count, ITEMS_PER_TILE)]
        symmetric = self._queries is self._targets and len(rows) == self.count
        taking = Lock()

        def multiply(one: slice, other: slice) -> None:
            scores = self._queries[rows[one]] @ self._targets[other].T
            itself = np.searchsorted(rows[one], np.arange(self.count)[other])
            columns = np.flatnonzero(itself < len(scores))
            columns = columns[rows[one][itself[columns]] == columns + other.start]
            scores[itself[columns], columns] = -np.inf
            found = best.better(one, scores)
            turned = best.better(other, scores.T) if symmetric and one != other else None
            with taking:
                best.take(one.start, other.start, *found)
                if turned is not None:
                    best.take(other.start, one.start, *turned)

        pairs: list[tuple[slice, slice]]
        if symmetric:
            # Start with the tiles on the diagonal, after which every item has a minimum score to beat.
            pairs = [*zip(tiles, tiles, strict=True), *combinations(tiles, 2)]
        else:
            asked = [slice(start, start + ITEMS_PER_TILE) for start in range(0, len(rows), ITEMS_PER_TILE)]
            pairs = [*product(asked, tiles)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(multiply, *zip(*pairs, strict=True)):
                pass
        return best

    def _exact(
        self, row: int, rows: Int64[ndarray, " n"], rough: Float32[ndarray, " n"], error: float
    ) -> Neighbours:
        """Return the exact answers for the item at `row`, from its candidates `rows` with scores `rough`.

        The scores differ from the cosines by at most `error`. If an item that is not a candidate may be among the best,
        all other items are candidates instead. A search would not do: it may use the ANN index.
        """
        ranked = -np.partition(-rough, (self.depth - 1, len(rough) - 1))
        least = min(ranked[self.depth - 1], np.float32(1)) - 2 * error  # `cosines` makes scores above 1 equal
        if len(rough) < self.count - 1 and not ranked[-1] < least:
            rows = np.delete(np.arange(self.count), row)
            scores = np.delete(np.vecdot(self._targets, self._queries[row]), row)
            return self._exact(row, rows, scores, _BestSoFar.error)
        rows = rows[rough >= least]
        return Neighbours.best(rows, cosines(self._targets[rows], self._queries[row]), self.depth)


class _BestSoFar:
    """The `keep` best rows and scores found so far for each item, in no particular order, and the `least` score."""

    error = ROUNDING / 2
    """Largest difference between a score and the cosine."""

    def __init__(self, count: int, keep: int) -> None:
        self.rows = np.full((count, keep), -1, np.int64)
        self.scores = np.full((count, keep), -np.inf, np.float32)
        self.least = np.full(count, -np.inf, np.float32)

    def better(
        self, places: slice, scores: Float32[ndarray, "places columns"]
    ) -> tuple[Int64[ndarray, " n"], Int64[ndarray, " n"], Float32[ndarray, " n"]]:
        """Return the scores in a tile that may be among the best of their item: they exceed its `least` score.

        The three arrays contain the row of each such score in the tile, its column, and the score itself.
        """
        keep = self.scores.shape[1]
        least = self.least[places]
        if scores.shape[1] > keep and np.isneginf(least).any():
            floor = np.partition(scores, -keep, axis=1)[:, -keep]
            least = np.maximum(least, np.nextafter(floor, np.float32(-np.inf)))
        if scores.flags.c_contiguous:
            place, column = np.divmod(np.flatnonzero(scores > least[:, None]), scores.shape[1])
        else:
            column, place = np.divmod(np.flatnonzero(least < scores.T), scores.shape[0])
            order = np.argsort(place, kind="stable")
            place, column = place[order], column[order]
        return place, column, scores[place, column]

    def take(
        self,
        first_place: int,
        first_row: int,
        place: Int64[ndarray, " n"],
        column: Int64[ndarray, " n"],
        scores: Float32[ndarray, " n"],
    ) -> None:
        """Merge the scores that `better` returned, and keep the best."""
        if not len(place):
            return
        touched, starts, counts = np.unique(place, return_index=True, return_counts=True)
        line = np.repeat(np.arange(len(touched)), counts)
        within = np.arange(len(place)) - np.repeat(starts, counts)
        width = int(counts.max())
        touched += first_place
        all_scores = np.full((len(touched), self.scores.shape[1] + width), -np.inf, np.float32)
        all_rows = np.full(all_scores.shape, -1, np.int64)
        all_scores[:, width:], all_rows[:, width:] = self.scores[touched], self.rows[touched]
        all_scores[line, within], all_rows[line, within] = scores, column + first_row
        kept = np.argpartition(all_scores, width, axis=1)[:, width:]
        self.scores[touched] = np.take_along_axis(all_scores, kept, axis=1)
        self.rows[touched] = np.take_along_axis(all_rows, kept, axis=1)
        self.least[touched] = self.scores[touched].min(axis=1)


def _empty(rows: int, depth: int) -> ndarray:
    return np.full((rows, depth), np.array((-1, 0), ENTRY))
