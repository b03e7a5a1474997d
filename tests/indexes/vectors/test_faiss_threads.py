"""BLAS uses one thread after `use_one_blas_thread`; the threads of torch stay as they are."""

import subprocess
import sys
from threading import Barrier, current_thread

import faiss
import pytest
from threadpoolctl import threadpool_info

from indexes.vectors import faiss_threads
from indexes.vectors.faiss_threads import thread_per_core, threads

SCRIPT = """
import numpy, torch
from threadpoolctl import threadpool_info
from indexes.vectors.faiss_threads import use_one_blas_thread
torch.set_num_threads(3)
use_one_blas_thread()
print({one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}, torch.get_num_threads())
"""


def test_blas_gets_one_thread_and_torch_keeps_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={"OPENBLAS_NUM_THREADS": "2", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["{1}", "3"]


def blas_threads() -> set[int]:
    return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}


@pytest.mark.parametrize(("most", "size"), [(None, 3), (2, 2), (8, 3)])
def test_pool_has_a_thread_for_each_core_that_uses_no_others(
    most: int | None, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faiss_threads, "available_cores", lambda: 3)
    with threads(2):
        before = blas_threads()
        together = Barrier(size, timeout=60)  # only so many threads can pass it

        def one_task(_: int) -> tuple[str, int]:
            together.wait()
            return current_thread().name, faiss.omp_get_max_threads()

        with thread_per_core(most) as pool:
            names, counts = zip(*pool.map(one_task, range(4 * size)), strict=True)
            assert (len(set(names)), set(counts), blas_threads()) == (size, {1}, {1})
        assert blas_threads() == before
        assert faiss.omp_get_max_threads() == 2
