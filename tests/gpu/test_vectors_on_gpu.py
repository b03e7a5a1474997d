"""FAISS finds the same items on GPUs as on the CPU, and gives their memory back."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy import ndarray

from indexes.config import FILE_KINDS, IndexKind
from indexes.storage.precomputed import write_precomputed
from indexes.vectors.faiss_backend import FaissVectors, write_vectors
from indexes.vectors.gpu_card import GpuCard, NoGpuError, find_cards
from indexes.vectors.gpu_vectors import Cards
from model.similarity import Similarity, View

pytestmark = pytest.mark.gpu

ITEMS, DIM = 100_000, 96


@pytest.fixture(scope="module")
def found() -> list[GpuCard]:
    try:
        return find_cards()
    except NoGpuError as error:
        pytest.skip(str(error))


def drawn(relation: int, view: View) -> Iterator[ndarray]:
    """Yield vectors in groups, in chunks; every third is that of the item before it."""
    rng = np.random.default_rng([relation, *view.encode()])
    centres = rng.standard_normal((2_000, DIM))
    for _ in range(ITEMS // 10_000):
        vectors = centres[rng.integers(0, 2_000, 10_000)] + 0.5 * rng.standard_normal((10_000, DIM))
        vectors[2::3] = vectors[1::3]
        yield (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_gpu_and_cpu_find_the_same_items(kind: IndexKind, found: list[GpuCard], tmp_path: Path) -> None:
    made = kind if kind == "hnsw" else "flat"  # a GPU scans all vectors instead of searching codes
    for name, its_kind in (("gpu", kind), ("cpu", made)):
        write_vectors(tmp_path / name, 1, DIM, drawn, its_kind, views=[View.AVERAGE])
    free = [card.room() for card in found]
    cards = Cards(found, 0.5)
    on_gpu, on_cpu = FaissVectors(tmp_path / "gpu", cards), FaissVectors(tmp_path / "cpu")
    on_gpu.copy_to_gpus()
    assert on_gpu.device == f"vectors of 1 relations on {cards}"
    rng = np.random.default_rng(1)
    queries = on_cpu.vectors(0, View.AVERAGE, range(8))
    queries[4:] += 0.05 * rng.standard_normal(queries[4:].shape).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    for query in queries:
        for k in (1, 10, 300, 3_000):
            for share in (0.001, 0.1, 1.0):
                allowed = rng.random(ITEMS) < share
                here, there = (one.search(0, View.AVERAGE, query, k, allowed) for one in (on_gpu, on_cpu))
                assert here.rows.tolist() == there.rows.tolist()
                assert here.scores.tolist() == there.scores.tolist()
    on_gpu.close()
    assert cards.used == 0
    kept = [before - card.room() for before, card in zip(free, found, strict=True)]
    assert max(kept) < 6 * 2**30  # the temporary memory of the lanes


def test_gpu_and_cpu_make_the_same_tables(found: list[GpuCard], tmp_path: Path) -> None:
    def first(relation: int, view: View) -> Iterator[ndarray]:
        yield from (chunk for chunk, _ in zip(drawn(relation, view), range(2), strict=False))

    write_vectors(tmp_path / "vectors", 1, DIM, first)
    for name, cards in (("gpu", Cards(found, 0.5)), ("cpu", Cards())):
        vectors = FaissVectors(tmp_path / "vectors", cards)
        write_precomputed(tmp_path / name, vectors, [0], [Similarity.AVG, Similarity.TI])
        assert (cards.used > 0) == (name == "gpu")
    for path in (tmp_path / "cpu").iterdir():
        assert (tmp_path / "gpu" / path.name).read_bytes() == path.read_bytes()
