"""Precomputed answers: exact top-k tables of the best items for every item under each relation.

    answers/
      003.AVG.npy   for each catalogue row, the 100 best other items: `row` (int32), `score` (float32), best first

A table row has fewer entries if there are fewer items, or if a compaction removed entries. Such a row is padded
with row number -1. Scores are not rounded to half precision, because items that are added later are merged by score
and must get the right rank.

All pairs of items are multiplied in single precision, tile by tile. The best candidates for each item are kept, and a
new candidate must score above the worst of them. If GPUs hold the vectors, they find the candidates instead. `cosines`
scores the final candidates exactly, so the tables do not depend on the device.

Tables are carried over to the next generation. If items listed in a row were changed or deleted, the remaining entries
are still the best ones, in the same order. Only new items are therefore compared with all others. A row that has fewer
than half of its entries left is computed again.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from threading import Lock

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from indexes.vectors.contract import ROUNDING, Neighbours, RoughNeighbours, VectorIndex, cosines
from model.console import progress_bar
from model.similarity import Similarity

from .arrays import map_array, save_array

ANSWERS_DIR = "answers"
"""Name of the folder within a generation that contains the tables."""

ANSWERS_PER_ITEM = 100
"""Number of answers stored for each item, which is also the largest `k` of a request."""

TIE_MARGIN = 8
"""Number of candidates kept in addition to the answers, so that the cutoff rarely falls between equal scores."""

ITEMS_PER_TILE = 4_096
"""Number of items on each side of one matrix product."""

QUERIES_PER_SCAN = 256
"""Number of items for which GPUs find candidates at a time."""

CANDIDATES_PER_SCAN = 128
"""Minimum number of candidates that GPUs find for an item. To find fewer takes as long."""

_ENTRY = np.dtype([("row", "<i4"), ("score", "<f4")])


class PrecomputedAnswers:
    """Top-k tables of a generation, mapped into memory on first use; safe to use from many threads.

    `names` are the files in `folder` that the manifest lists. No other table is read.
    """

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._folder = folder
        self._names = frozenset(names)
        self._opened: dict[str, ndarray] = {}
        self._opening = Lock()

    @property
    def similarities(self) -> tuple[Similarity, ...]:
        """Similarities that have tables."""
        return tuple(one for one in Similarity if _name(0, one) in self._names)

    def best(
        self, relation: int, similarity: Similarity, row: int, k: int, without: frozenset[int] = frozenset()
    ) -> Neighbours | None:
        """Look up the `k` best items for the item at `row`, or all items if there are fewer.

        Rows in `without` are left out. The result is None if there is no table, or if the table does not contain enough
        entries.
        """
        table = self.table(relation, similarity)
        if table is None:
            return None
        entries = table[row]
        rows, scores = entries["row"], entries["score"]
        if not without and k <= len(rows) and rows[k - 1] >= 0:
            return Neighbours(rows[:k].astype(np.int64), scores[:k])
        if without:
            kept = [place for place, one in enumerate(rows.tolist()) if one not in without]
            rows, scores = rows[kept], scores[kept]
        there = int((rows[:k] >= 0).sum())
        whole = table.shape[1] >= len(table) - 1 and (not len(rows) or rows[-1] >= 0)
        if there < k and not whole:
            return None
        return Neighbours(rows[:there].astype(np.int64), np.asarray(scores[:there]))

    def entries(
        self, relation: int, similarity: Similarity, row: int, start: int, stop: int
    ) -> list[tuple[int, float]] | None:
        """Return the entries `start` to `stop` (excluded) for the item at `row`; None if there are not as many."""
        table = self.table(relation, similarity)
        if table is None or stop > table.shape[1]:
            return None
        entries: list[tuple[int, float]] = table[row, start:stop].tolist()
        return entries if entries[-1][0] >= 0 else None

    def table(self, relation: int, similarity: Similarity) -> ndarray | None:
        """Map the table of a relation and similarity, with one row per item; None if there is no table."""
        name = _name(relation, similarity)
        if name not in self._names:
            return None
        if name not in self._opened:
            with self._opening:
                if name not in self._opened:
                    self._opened[name] = map_array(self._folder / name, _ENTRY, 2)
        return self._opened[name]

    def copy(self, folder: Path, positions: Mapping[int, int]) -> None:
        """Copy the tables into `folder`, which is created if there are any tables.

        `positions` has the same meaning as in `faiss_backend.Carried`.
        """
        for similarity in self.similarities:
            folder.mkdir(exist_ok=True)
            for now, then in positions.items():
                shutil.copyfile(self._folder / _name(then, similarity), folder / _name(now, similarity))


@dataclass(frozen=True)
class PreviousAnswers:
    """Tables of the previous generation, and the new row of each of its items; -1 if the item was changed or deleted.

    The remaining items keep their order and come before all new items.
    """

    answers: PrecomputedAnswers
    renumbered: Int64[ndarray, " before"]


def write_precomputed(
    folder: Path,
    vectors: VectorIndex,
    relations: Sequence[int],
    similarities: Sequence[Similarity],
    before: PreviousAnswers | None = None,
) -> None:
    """Write the tables of the given similarities and relations into `folder`, which is created if necessary.

    Tables in `before` are carried over.
    """
    if not similarities:
        return
    folder.mkdir(exist_ok=True)
    tables = [(similarity, relation) for similarity in similarities for relation in relations]
    with progress_bar("precomputing answers", len(tables)) as advance:
        for similarity, relation in tables:
            maker = TableMaker(vectors, relation, similarity)
            table = None if before is None else maker.carried(before)
            if table is None:
                table = maker.table(np.arange(maker.count))
            save_array(folder / _name(relation, similarity), table)
            advance("")


class TableMaker:
    """Builder of the table of one relation and similarity."""

    def __init__(self, vectors: VectorIndex, relation: int, similarity: Similarity) -> None:
        self._vectors, self._relation, self._similarity = vectors, relation, similarity
        query_view, self._target_view = similarity.views
        self.count = vectors.count
        self.depth = max(min(ANSWERS_PER_ITEM, self.count - 1), 0)
        self._targets = vectors.vectors(relation, self._target_view, range(self.count))
        self._queries = self._targets
        if query_view != self._target_view:
            self._queries = vectors.vectors(relation, query_view, range(self.count))

    def table(self, rows: Int64[ndarray, " rows"]) -> ndarray:
        """Compute the answers for the items at `rows` from scratch; `rows` must be in ascending order."""
        table = _empty(len(rows), self.depth)
        if self.depth:
            best = self._scanned(rows) or self._best(rows)
            for place, row in enumerate(rows.tolist()):
                found = self._exact(row, best.rows[place], best.scores[place], best.error)
                table[place]["row"], table[place]["score"] = found.rows, found.scores
        return table

    def carried(self, before: PreviousAnswers) -> ndarray | None:
        """Compute the answers for all items from the previous table; None if there is no such table."""
        old = before.answers.table(self._relation, self._similarity)
        if old is None:
            return None
        entries = old[before.renumbered >= 0]
        whole = (entries["row"] >= 0).sum(axis=1) == len(old) - 1  # rows that list all other items
        rows = np.where(entries["row"] < 0, -1, before.renumbered[entries["row"]])
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
        new = self._targets[len(last) :]
        step = max(ITEMS_PER_TILE**2 // max(len(new), 1), 1)
        for start in range(0, len(last), step):
            least = last[start : start + step, None] - ROUNDING
            near = self._queries[start : start + len(least)] @ new.T >= least
            for place in np.flatnonzero(near.any(axis=1)).tolist():
                columns = np.flatnonzero(near[place])
                scores = cosines(new[columns], self._queries[start + place])
                better = scores > last[start + place]
                if better.any():
                    yield start + place, Neighbours(len(last) + columns[better], scores[better])

    def _scanned(self, rows: Int64[ndarray, " rows"]) -> RoughNeighbours | None:
        """Find the same candidates as `_best`, and more, with `VectorIndex.scan`; None if it finds none."""
        k = min(max(self.depth + TIE_MARGIN + 1, CANDIDATES_PER_SCAN), self.count)
        parts = []
        for start in range(0, len(rows), QUERIES_PER_SCAN):
            asked = rows[start : start + QUERIES_PER_SCAN]
            found = self._vectors.scan(self._relation, self._target_view, self._queries[asked], k)
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
        scan all items instead.
        """
        ranked = -np.partition(-rough, (self.depth - 1, len(rough) - 1))
        least = min(ranked[self.depth - 1], np.float32(1)) - 2 * error  # `cosines` makes scores above 1 equal
        if len(rough) < self.count - 1 and not ranked[-1] < least:
            allowed = np.ones(self.count, bool)
            allowed[row] = False
            query = self._queries[row]
            return self._vectors.search(self._relation, self._target_view, query, self.depth, allowed)
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
    return np.full((rows, depth), np.array((-1, 0), _ENTRY))


def _name(relation: int, similarity: Similarity) -> str:
    return f"{relation:03d}.{similarity}.npy"
