"""Rate at which this machine builds ANN indexes, measured with a small one."""

import math
import time

import faiss
import numpy as np

from indexes.config import IndexKind

from .ann_index import TRAINING_ROUNDS, VECTORS_PER_CELL, empty_graph
from .faiss_threads import threads

PROBE_VECTORS = 2_048
"""Number of random vectors in the small index."""


def seconds_to_build(kind: IndexKind, items: int, dim: int) -> float:
    """Estimate the seconds to build one ANN index, from the time to build a small one of random vectors.

    The work of a graph grows by n log n. That of cells is the comparison of vectors with cells: of those that train the
    cells in every round, then of each item.
    """
    vectors = np.random.default_rng(0).standard_normal((PROBE_VECTORS, dim), np.float32)
    with threads():
        if kind == "hnsw":
            graph = empty_graph(dim)
            started = time.perf_counter()
            graph.add(vectors)
            took = time.perf_counter() - started
            return took * items * math.log(items) / (PROBE_VECTORS * math.log(PROBE_VECTORS))
        cells = faiss.IndexFlatIP(dim)
        cells.add(vectors)
        cells.search(vectors[:64], 1)
        started = time.perf_counter()
        cells.search(vectors, 1)
        per_pair = (time.perf_counter() - started) / PROBE_VECTORS**2
    count = 4 * math.sqrt(items)
    return per_pair * count * (TRAINING_ROUNDS * VECTORS_PER_CELL * count + items)
