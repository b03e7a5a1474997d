"""Number of threads that FAISS and the BLAS library of NumPy use.

OpenMP, which FAISS uses, stores this number separately for each calling thread.

Operations that take less than a millisecond use one thread. Further threads would spin while they wait and slow down
the rest of the process: a free-text relation search in a server thread took 16 ms instead of 1.3 ms.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import faiss
from threadpoolctl import threadpool_limits

from model.worker_pools import available_cores


@contextmanager
def threads(count: int | None = None) -> Iterator[None]:
    """Set the number of threads that FAISS uses when called from the current thread; by default one per processor."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count or os.cpu_count() or 1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@contextmanager
def thread_per_core(most: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Provide a thread for each core, at most `most`, in which FAISS and products of matrices use no further threads.

    The limit on BLAS holds for the whole process until the pool ends.
    """
    cores = min(available_cores(), most or available_cores())
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(cores, initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool,
    ):
        yield pool


def use_one_blas_thread() -> None:
    """Compute each product of matrices in the thread that asks for it, from now on and in the whole process.

    OpenBLAS splits a product between all processors, and its threads wait actively for one another. Beside other work a
    search under a free-text relation then took 39 ms of processor time instead of 7 ms (100,000 items, 128 components).
    torch has threads of its own, which stay as they are.
    """
    threadpool_limits(1, user_api="blas")
