"""Number of threads that FAISS uses. OpenMP stores this number separately for each calling thread.

Operations that take less than a millisecond use one thread. Further threads would spin while they wait and slow down
the rest of the process: a free-text relation search in a server thread took 16 ms instead of 1.3 ms.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import faiss


@contextmanager
def threads(count: int | None = None) -> Iterator[None]:
    """Set the number of threads that FAISS uses when called from the current thread; by default one per processor."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count or os.cpu_count() or 1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
