"""Copies of vectors on GPUs, and the memory that they may take.

    cards = open_cards(0.8)                    all GPUs of the process
    table = cards.load(vectors, count, dim)    a copy of the vectors of one relation and view; None if it does not fit
    table.near(query, wanted, allowed)         all rows that may be among the best, for exact scoring

A copy is divided among the lanes of all GPUs. A search reads all of it, so it is exact, and several queries that wait
for the GPUs are answered together, by reading the vectors once. The GPUs round their scores differently from the CPU.
`CardTable.error` bounds the difference, and `near` returns every row within it. The caller scores these rows with
`cosines`, so the results are the same as without a GPU.

If a copy does not fit, or if a GPU fails, the vectors are searched on the CPU.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Lock, RLock
from weakref import finalize

import faiss
import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from model.console import say
from model.similarity import View

from .contract import Neighbours, widened
from .gpu_card import MAX_CARD_DEPTH, Card, CardIndex, NoGpuError, find_cards, one_line

MAX_QUERIES_AT_ONCE = 256
"""Maximum number of queries that are answered together."""

MIN_CARD_ITEMS = 10_000
"""Minimum number of items that are copied to GPUs. The CPU scans fewer in the time that a GPU takes to begin."""

MIN_LANE_ITEMS = 32_768
"""Minimum number of vectors in a lane. To divide fewer takes longer than to search them."""

MAX_BLOCK_BYTES = 2**32
"""Maximum size in bytes of the single-precision vectors that are copied to a lane at a time."""

MIN_DEPTH = 32
"""Minimum number of rows that a search finds. To find fewer takes as long."""

OVERFETCH = 2
"""Factor on the number of rows that a search finds, so that it seldom has to be repeated with more."""

LONGEST_NORM = 1.001
"""Upper bound of the norm of a stored vector. It has unit length, except that its components are rounded."""

Found = tuple[Float32[ndarray, "queries k"], Int64[ndarray, "queries k"]]
"""Scores and rows for each query, best first."""


Vectors = Callable[[Int64[ndarray, " rows"]], Float32[ndarray, "rows dim"]]
"""Function that returns the vectors at given rows."""


class Cards:
    """The GPUs of a process, and the memory that copies of vectors take on them; safe to use from many threads.

    `share` is the maximum share of the free memory that the copies may take. `missing` is the reason if there are no
    `cards`.
    """

    def __init__(self, cards: Sequence[Card] = (), share: float = 0.0, missing: str = "") -> None:
        self.missing = missing
        self.used = 0
        self.budget = int(share * min((card.room() for card in cards), default=0)) * len(cards)
        self.lock = RLock()  # a garbage collection during `load` may free another table in the same thread
        self._names = [card.name for card in cards]
        self._next_lane = 0
        self._lanes = [lane for lanes in zip(*(card.lanes for card in cards), strict=True) for lane in lanes]
        self._threads = ThreadPoolExecutor(max(len(self._lanes), 1), "rcml gpu")

    def __bool__(self) -> bool:
        """Return whether there is a GPU."""
        return bool(self._lanes)

    def __str__(self) -> str:
        """Name the GPUs and the memory in use, such as `cuda:0 (1.2 of 75.0 GiB)`."""
        used, budget = (f"{size / 2**30:.1f}" for size in (self.used, self.budget))
        return f"{', '.join(self._names)} ({used} of {budget} GiB)"

    def fits(self, count: int, dim: int) -> bool:
        """Return whether a copy of `count` vectors fits into the memory that is left."""
        return self.used + _table_bytes(count, dim) <= self.budget

    def load(self, vectors: Vectors, count: int, dim: int) -> "CardTable | None":
        """Copy `count` vectors to the GPUs; `vectors` returns those at given rows. Return None if they do not fit."""
        with self.lock:
            if not self._lanes or not self.fits(count, dim):
                return None
            self.used += _table_bytes(count, dim)
        table = CardTable(self, count, dim)
        rows = max(math.ceil(count / len(self._lanes)), MIN_LANE_ITEMS)
        rows = min(rows, max(MAX_BLOCK_BYTES // (4 * dim), 1))
        try:
            for start in range(0, count, rows):
                block = vectors(np.arange(start, min(start + rows, count)))
                with self.lock:
                    lane, self._next_lane = self._next_lane, (self._next_lane + 1) % len(self._lanes)
                    table.add(lane, start, self._lanes[lane].load(block))
        except (RuntimeError, MemoryError) as error:
            self.give_up(table, error)
            return None
        return table

    def each(self, work: Callable[[int], list[Found]], lanes: Sequence[int]) -> list[Found]:
        """Call `work` for several lanes at the same time, and return all results."""
        if len(lanes) == 1:
            return work(lanes[0])
        return [found for results in self._threads.map(work, lanes) for found in results]

    def free(self, table: "CardTable") -> None:
        """Free the memory of a table, which then finds nothing."""
        with self.lock:
            if table.blocks is not None:
                table.blocks = None
                self.used -= _table_bytes(table.count, table.dim)

    def give_up(self, table: "CardTable", error: Exception) -> None:
        """Free a table after a failure, say so once, and put no further vectors on the GPUs until others are freed."""
        with self.lock:
            if table.blocks is None:
                return
            self.free(table)
            self.budget = min(self.budget, self.used)
        say(f"Searching vectors on the CPU, because {', '.join(self._names)} failed: {one_line(error)}")


class CardTable:
    """Copy of `count` vectors on the GPUs; safe to search from many threads.

    `blocks` contains, for each lane, the first rows and the vectors in it; None when the copy was freed. `waiting`
    contains the queries that wait for the GPUs.
    """

    def __init__(self, cards: Cards, count: int, dim: int) -> None:
        self.count, self.dim = count, dim
        self.blocks: dict[int, list[tuple[int, CardIndex]]] | None = {}
        self._cards = cards
        self.waiting: deque[_Asked] = deque()

    def add(self, lane: int, first_row: int, index: CardIndex) -> None:
        """Add vectors, of which the first is that of the item at `first_row`."""
        assert self.blocks is not None, "a table is filled before it is used"
        self.blocks.setdefault(lane, []).append((first_row, index))

    def error(self, query: Float32[ndarray, "*queries dim"]) -> float:
        """Return the largest difference between a score on a GPU and the cosine, for any of the given queries.

        A GPU sums `dim` products in an order of its own, and may truncate each sum to 23 bits; it rounds the query to
        half precision. By the Cauchy-Schwarz inequality, neither can change a score by more than this.
        """
        rounded = query - _halves(query)
        longest = np.linalg.norm(query, axis=-1).max(initial=0.0)
        lost = np.linalg.norm(rounded, axis=-1).max(initial=0.0)
        return float(LONGEST_NORM * ((self.dim + 2) * 2.0**-23 * longest + lost))

    def near(
        self, query: Float32[ndarray, " dim"], wanted: int, allowed: Bool[ndarray, " count"] | None = None
    ) -> Neighbours | None:
        """Find every row that may be among the `wanted` best rows, of all or of the allowed ones; see `widened`.

        Rows that are not allowed are dropped from a longer result, because a GPU does not skip them. The result is None
        if it would be too long for a GPU, or if the table was freed.
        """
        few = self.count if allowed is None else int(np.count_nonzero(allowed))
        most = min(self.count, MAX_CARD_DEPTH)

        def find(depth: int) -> Neighbours | None:
            if depth * self.count > most * few:
                return None  # too few rows of the longest result are expected to pass
            asked = min(max(OVERFETCH * depth * self.count // few, MIN_DEPTH), most)
            while (found := self.nearest(query[None], asked)) is not None:
                scores, rows = (one[0] for one in found)
                if allowed is not None:
                    passed = allowed[rows]
                    scores, rows = scores[passed], rows[passed]
                if len(rows) >= depth:
                    return Neighbours(rows, scores)
                if asked == most:
                    return None
                asked = min(2 * asked, most)
            return None

        return widened(find, wanted, few, 2 * self.error(query))

    def nearest(self, queries: Float32[ndarray, "queries dim"], k: int) -> Found | None:
        """Return the `k` best rows for each query by the scores of the GPU, or None if the table was freed.

        `k` must be at most the number of vectors, and at most `MAX_CARD_DEPTH`.
        """
        asked = _Asked(_halves(queries), k)
        self.waiting.append(asked)
        with self._cards.lock:
            while not asked.done:
                self._answer_some()
        return asked.found

    def _answer_some(self) -> None:
        """Answer the queries that have waited longest, in one search."""
        batch = [self.waiting.popleft()]
        count = len(batch[0].queries)
        while self.waiting and count + len(self.waiting[0].queries) <= MAX_QUERIES_AT_ONCE:
            batch.append(self.waiting.popleft())
            count += len(batch[-1].queries)
        found, start = None, 0
        if self.blocks is not None:
            try:
                found = self._search(
                    np.concatenate([one.queries for one in batch]), max(one.k for one in batch)
                )
            except RuntimeError as error:
                self._cards.give_up(self, error)
        for one in batch:
            end = start + len(one.queries)
            if found is not None:
                one.found = found[0][start:end, : one.k], found[1][start:end, : one.k]
            one.done, start = True, end

    def _search(self, queries: Float32[ndarray, "queries dim"], k: int) -> Found:
        blocks = self.blocks
        assert blocks is not None, "checked by the caller, who holds the lock"

        def search(lane: int) -> list[Found]:
            faiss.omp_set_num_threads(1)  # in this thread; it merges on the CPU
            found = []
            for first_row, index in blocks[lane]:
                scores, rows = index.search(queries, k)
                rows[rows >= 0] += first_row
                found.append((scores, rows))
            return found

        parts = self._cards.each(search, list(blocks))
        if len(parts) == 1:
            return parts[0]
        scores, rows = faiss.merge_knn_results(*map(np.stack, zip(*parts, strict=True)), keep_max=True)
        return scores, rows


class CardTables:
    """Copies of the vectors of one generation on GPUs; safe to use from many threads.

    They are freed by `close`, or when the object is deleted.
    """

    def __init__(self, cards: Cards) -> None:
        self._cards = cards
        self._tables: dict[tuple[int, View], CardTable] = {}
        self._copying = Lock()
        self.close = finalize(self, _free, cards, self._tables)

    def table(
        self, key: tuple[int, View], count: int, source: Callable[[], tuple[Vectors, int]]
    ) -> CardTable | None:
        """Return the copy of the `count` vectors of a relation and view, or None if they are searched on the CPU.

        A missing copy is made from `source`, which returns a function for the vectors and their dimension, if the
        GPUs have room for it and no other thread is making a copy.
        """
        table = self._tables.get(key)
        if table is not None and table.blocks is not None:
            return table
        if not self._cards or count < MIN_CARD_ITEMS:
            return None
        vectors, dim = source()
        if not self._cards.fits(count, dim) or not self._copying.acquire(blocking=False):
            return None
        try:
            table = self._cards.load(vectors, count, dim) if self.close.alive else None
            if table is not None:
                self._tables[key] = table
                if not self.close.alive:  # closed meanwhile
                    self._cards.free(table)
            return table
        finally:
            self._copying.release()

    def describe(self, count: int, files: int, relations: int) -> str:
        """Tell which of the `files` with vectors of `count` items under `relations` are on GPUs, and why not."""
        if not self._cards:
            return f"vectors are searched on the CPU: {self._cards.missing}"
        if count < MIN_CARD_ITEMS:
            return f"vectors are searched on the CPU, which is faster below {MIN_CARD_ITEMS:,} items"
        copied = sum(table.blocks is not None for table in list(self._tables.values()))
        if copied == files:
            return f"vectors of {relations} relations on {self._cards}"
        return f"{copied} of {files} vector files on {self._cards}, the others on the CPU (see --gpu-memory)"


@dataclass
class _Asked:
    """Queries of a thread that waits for the GPUs."""

    queries: Float32[ndarray, "queries dim"]
    k: int
    found: Found | None = field(default=None)
    done: bool = False


@lru_cache
def open_cards(share: float) -> Cards:
    """Return the GPUs of this process, whose memory vectors may take up to a `share`; 0: use none."""
    if share == 0:
        return Cards(missing="--device cpu or --gpu-memory 0 rules out GPUs")
    try:
        return Cards(find_cards(), share)
    except NoGpuError as error:
        return Cards(missing=str(error))


CPU = Cards(missing="this process was not told to use GPUs")
"""No GPUs."""


def _free(cards: Cards, tables: dict[tuple[int, View], CardTable]) -> None:
    for table in list(tables.values()):
        cards.free(table)


def _halves(vectors: Float32[ndarray, "*any"]) -> Float32[ndarray, "*any"]:
    """Round to half precision, so that a GPU need not."""
    halves: ndarray = vectors.astype(np.float16).astype(np.float32)
    return halves


def _table_bytes(count: int, dim: int) -> int:
    """Return the size of a copy: vectors in half precision, and their norms, which FAISS stores twice for a while."""
    return count * (2 * dim + 8)
