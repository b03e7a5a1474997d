"""Vectors that the kernel reads ahead: what is asked for, and results that do not depend on it."""

import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest

from indexes.vectors.ann_index import candidates_of_codes, read_index
from indexes.vectors.faiss_backend import FaissVectors, write_vectors
from indexes.vectors.half_vectors import MAX_RANGES, HalfVectors
from model.similarity import View

DIM, COUNT = 64, 2_000


def drawn() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((COUNT, DIM)).astype(np.float16)


@pytest.fixture
def vectors(tmp_path: Path) -> HalfVectors:
    write_vectors(tmp_path / "vectors", 1, DIM, lambda relation, view: [drawn()], views=[View.AVERAGE])
    exact = read_index(tmp_path / "vectors" / "000.average.faiss", faiss.IO_FLAG_MMAP_IFC)
    return HalfVectors(exact)


def enough(vectors: HalfVectors, rows: np.ndarray) -> bool:
    """Return whether the kernel is asked for all bytes of the vectors, and for at most a page more for each."""
    size = 2 * DIM
    return size * len(rows) <= vectors.read_ahead(rows) <= (size + mmap.PAGESIZE) * len(rows)


linux = pytest.mark.skipif(sys.platform != "linux", reason="process_madvise is a call of Linux")


@linux
@pytest.mark.parametrize("count", [0, 1, 320, MAX_RANGES, MAX_RANGES + 1])
def test_asks_for_every_vector(vectors: HalfVectors, count: int) -> None:
    assert enough(vectors, np.random.default_rng(1).permutation(COUNT)[:count])


@linux
def test_first_and_last_vector_of_the_file_are_valid(vectors: HalfVectors) -> None:
    assert enough(vectors, np.array([0, COUNT - 1]))


@linux
def test_forked_process_asks_for_its_own_memory(vectors: HalfVectors) -> None:
    rows = np.arange(50)
    assert enough(vectors, rows)
    if (child := os.fork()) == 0:
        os._exit(0 if enough(vectors, rows) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def refuse(pid: int) -> int:
    raise OSError("not permitted")


@pytest.mark.parametrize("open_pidfd", [refuse, lambda pid: -1], ids=["refused", "no descriptor"])
def test_results_are_the_same_without_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_pidfd: Callable[[int], int]
) -> None:
    monkeypatch.setattr("indexes.vectors.faiss_backend.MAX_SCANNED_ITEMS", 10)
    unit = drawn().astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    write_vectors(tmp_path / "vectors", 1, DIM, lambda *_: [unit], "ivf-rabitq", views=[View.AVERAGE])
    opened = FaissVectors(tmp_path / "vectors")
    with_kernel = [opened.search(0, View.AVERAGE, query, 10) for query in unit[:20]]
    from indexes.vectors import half_vectors

    monkeypatch.setattr(os, "pidfd_open", open_pidfd, raising=False)
    half_vectors.kernel.cache_clear()
    try:
        without = [opened.search(0, View.AVERAGE, query, 10) for query in unit[:20]]
        assert (
            half_vectors.HalfVectors(read_index(tmp_path / "vectors" / "000.average.faiss")).read_ahead(
                np.arange(9)
            )
            == 0
        )
    finally:
        half_vectors.kernel.cache_clear()
    for one, other in zip(with_kernel, without, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.scores, other.scores)


@pytest.mark.parametrize(
    ("k", "cells", "candidates"), [(1, 16, 320), (20, 16, 320), (200, 16, 1_600), (20, 512, 1_024)]
)
def test_codes_give_enough_candidates(k: int, cells: int, candidates: int) -> None:
    assert candidates_of_codes(k, cells) == candidates
