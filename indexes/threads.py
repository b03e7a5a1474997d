"""How many threads FAISS takes: OpenMP keeps the number for each thread that calls it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import faiss


@contextmanager
def one_thread() -> Iterator[None]:
    """FAISS works in the calling thread alone.

    For what takes less than a millisecond: more threads spin while they wait for one another, at the expense of
    whatever else the process computes (a relation in words, asked in a thread of the server: 16 ms instead of 1.3).
    """
    yield from _threads(1)


@contextmanager
def all_threads() -> Iterator[None]:
    """FAISS takes every processor."""
    yield from _threads(os.cpu_count() or 1)


def _threads(count: int) -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
