"""How many threads FAISS takes: OpenMP keeps the number for each thread that calls it.

One, for what takes less than a millisecond: others would spin while they wait, at the expense of whatever else the
process computes (a search under a free-text relation, in a thread of the server, took 16 ms instead of 1.3).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import faiss


@contextmanager
def threads(count: int | None = None) -> Iterator[None]:
    """Have FAISS use so many threads for what this one asks of it; by itself, one for each processor."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count or os.cpu_count() or 1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
