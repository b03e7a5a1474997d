"""Stand-in for a GPU: FAISS on the CPU, with the limits, the rounding and the failures of FAISS on a GPU."""

from threading import Lock
from weakref import finalize

import faiss
import numpy as np
from numpy import ndarray

from indexes.vectors.gpu_card import MAX_CARD_DEPTH

GIB = 2**30


class StandInCard:
    """GPU with `memory` bytes. While `broken` is set, every call fails with it.

    Like a real one, it rounds queries to half precision, returns scores that are a little too low, limits the number
    of results, and must not be called twice at the same time on the same lane. `asked` lists the number of queries of
    each call on the first lane.
    """

    name = "cuda:0"

    def __init__(self, memory: int = GIB, lanes: int = 3) -> None:
        self.memory, self.used = memory, 0
        self.broken = ""
        self.asked: list[int] = []
        self.lanes = [StandInLane(self, first=number == 0) for number in range(lanes)]

    def room(self) -> int:
        return self.memory

    def take(self, size: int) -> None:
        if self.broken or self.used + size > self.memory:
            raise RuntimeError(
                "Error in virtual void* faiss::gpu::StandardGpuResourcesImpl::allocMemory(const faiss::gpu::"
                "AllocRequest&) at /project/faiss/gpu/StandardGpuResources.cpp:1: Error: 'err == cudaSuccess' failed: "
                f"{self.broken or 'out of memory'}"
            )
        self.used += size

    def give(self, size: int) -> None:
        self.used -= size


class StandInLane:
    def __init__(self, card: StandInCard, first: bool) -> None:
        self.card, self.first, self.busy = card, first, Lock()

    def load(self, vectors: ndarray) -> "StandInIndex":
        assert vectors.dtype == np.float32
        self.card.take(vectors.size * 2 + 8 * len(vectors))
        return StandInIndex(self, vectors)


class StandInIndex:
    def __init__(self, lane: StandInLane, vectors: ndarray) -> None:
        self._lane = lane
        self._flat = faiss.IndexScalarQuantizer(
            vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        self._flat.add(vectors)
        finalize(self, lane.card.give, vectors.size * 2 + 8 * len(vectors))

    def search(self, queries: ndarray, k: int) -> tuple[ndarray, ndarray]:
        assert self._lane.busy.acquire(blocking=False), "two calls on one lane at the same time"
        try:
            if self._lane.first:
                self._lane.card.asked.append(len(queries))
            self._lane.card.take(0)
            if k > MAX_CARD_DEPTH:
                raise RuntimeError(f"GPU index only supports min/max-K selection up to 2048 (requested {k})")
            return self._search(queries.astype(np.float16).astype(np.float32), k)
        finally:
            self._lane.busy.release()

    def _search(self, queries: ndarray, k: int) -> tuple[ndarray, ndarray]:
        items = self._flat.ntotal
        scores, rows = self._flat.search(queries, items)
        lost = np.random.default_rng(items).random(items) * self._flat.d * 2.0**-23
        scores = (scores - lost[rows]).astype(np.float32)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best = np.full((len(queries), k), np.finfo(np.float32).min, np.float32)
        best_rows = np.full((len(queries), k), -1, np.int64)
        best[:, : order.shape[1]] = np.take_along_axis(scores, order, axis=1)
        best_rows[:, : order.shape[1]] = np.take_along_axis(rows, order, axis=1)
        return best, best_rows
