"""Vectors on GPUs: the same results as on the CPU, within the memory budget, and a fallback for every failure."""

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import ndarray

from indexes.config import IndexKind
from indexes.vectors.contract import VectorIndex, cosines
from indexes.vectors.faiss_backend import FaissVectors, write_vectors
from indexes.vectors.gpu_card import NoGpuError, cuda_runtime, find_cards, one_line
from indexes.vectors.gpu_vectors import Cards, CardTable, CardTables, open_cards
from model.similarity import View

from .stand_in_card import StandInCard

ITEMS, RELATIONS, DIM = 3_000, 2, 32
FILE_BYTES = ITEMS * (2 * DIM + 8)


def drawn(relation: int, view: View) -> ndarray:
    """Return vectors in tight groups, so that many cosines are nearly equal, and every fifth twice."""
    rng = np.random.default_rng([relation, *view.encode()])
    centres = rng.standard_normal((40, DIM))
    vectors = centres[rng.integers(0, 40, ITEMS)] + 0.003 * rng.standard_normal((ITEMS, DIM))
    vectors[::5] = vectors[rng.permutation(ITEMS)[: len(vectors[::5])]]
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module", params=["flat", "hnsw", "ivf-rabitq", "ivf-pq"])
def kind(request: pytest.FixtureRequest) -> IndexKind:
    found: IndexKind = request.param
    return found


@pytest.fixture(scope="module")
def folder(kind: IndexKind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("gpu") / "vectors", kind)


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("gpu") / "vectors", "flat")


def written(folder: Path, kind: IndexKind) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("indexes.vectors.faiss_backend.MAX_SCANNED_ITEMS", 0)
        write_vectors(folder, RELATIONS, DIM, lambda relation, view: [drawn(relation, view)], kind)
    return folder


@pytest.fixture(autouse=True)
def few_items_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexes.vectors.gpu_vectors.MIN_CARD_ITEMS", 0)
    monkeypatch.setattr("indexes.vectors.gpu_vectors.MIN_LANE_ITEMS", 500)


def best(vectors: VectorIndex, query: ndarray, k: int = 10, allowed: ndarray | None = None) -> list[object]:
    found = vectors.search(0, View.TEXT, query, k, allowed)
    return list(zip(found.rows.tolist(), found.scores.tolist(), strict=True))


def on_cpu_as_on_gpu(kind: IndexKind, folder: Path, flat: Path) -> FaissVectors:
    """Open vectors that a CPU searches as a GPU does: it walks a graph, but scans instead of searching codes."""
    return FaissVectors(folder if kind == "hnsw" else flat)


def test_search_with_a_filter_gives_the_same_rows_and_scores_as_on_the_cpu(
    folder: Path, kind: IndexKind, flat: Path
) -> None:
    card = StandInCard()
    on_gpu, on_cpu = FaissVectors(folder, Cards([card], 1.0)), on_cpu_as_on_gpu(kind, folder, flat)
    rng = np.random.default_rng(0)
    queries = drawn(0, View.TEXT)[rng.integers(0, ITEMS, 12)]
    queries[::2] += 0.01 * rng.standard_normal(queries[::2].shape).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    for query in queries:
        for k in (1, 10, 130, 2_500):
            for share in (0.002, 0.3, 0.9, 1.0):
                allowed = rng.random(ITEMS) < share
                assert best(on_gpu, query, k, allowed) == best(on_cpu, query, k, allowed)
    assert len(card.asked) > len(queries)


def test_search_without_a_filter_is_exact_except_in_a_graph(
    folder: Path, kind: IndexKind, flat: Path
) -> None:
    card = StandInCard()
    on_gpu = FaissVectors(folder, Cards([card], 1.0))
    query = drawn(0, View.TEXT)[17]
    found = best(on_gpu, query)
    assert bool(card.asked) == (kind != "hnsw")
    assert found == best(on_cpu_as_on_gpu(kind, folder, flat), query)


@given(st.integers(0, 2**32), st.sampled_from([3, 32, 200]), st.floats(-6, 0))
@settings(max_examples=40, deadline=None)
def test_scores_of_a_gpu_are_within_the_error(seed: int, dim: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((50, dim)) * 10.0 ** (size * rng.random(dim))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    query = rng.standard_normal(dim) * 10.0 ** (size * rng.random(dim))
    query = (query / np.linalg.norm(query)).astype(np.float32)
    table = Cards([StandInCard()], 1.0).load(lambda rows: vectors[rows], 50, dim)
    assert table is not None
    found = table.nearest(query[None], 50)
    assert found is not None
    (scores,), (rows,) = found
    exact = np.einsum("nd,d->n", vectors[rows], query, dtype=np.float64)
    assert np.abs(scores - exact).max() <= table.error(query)
    assert table.error(vectors) <= 1.1 * (dim + 2) * 2.0**-23  # half-precision queries lose nothing


def test_scores_above_one_tie(tmp_path: Path) -> None:
    """Rounding can make vectors a little too long. Their cosines are cut to 1, and then the catalogue order decides."""
    item = np.full((1, 16), 0.25, np.float32)
    vectors = np.concatenate([item, 1.0005 * item, 1.002 * item])
    write_vectors(tmp_path / "vectors", 1, 16, lambda relation, view: [vectors], views=[View.TEXT])
    for cards in (Cards(), Cards([StandInCard()], 1.0)):
        assert best(FaissVectors(tmp_path / "vectors", cards), item[0], 1) == [(0, 1.0)]


def test_waiting_queries_are_answered_together() -> None:
    card, items = StandInCard(), drawn(0, View.TEXT)
    cards = Cards([card], 1.0)
    table = cards.load(lambda rows: items[rows], ITEMS, DIM)
    assert table is not None
    depths = [5, 300, 1, 40, 2_048, 7]

    def ask(number: int) -> list[list[int]]:
        found = table.nearest(items[number : number + 2], depths[number])
        assert found is not None
        rows: list[list[int]] = found[1].tolist()
        return rows

    alone = [*map(ask, range(6))]
    card.asked.clear()
    with ThreadPoolExecutor(6) as threads:
        with cards.lock:
            asked = [threads.submit(ask, number) for number in range(6)]
            while len(table.waiting) < 6:
                time.sleep(0.001)
        assert [one.result() for one in asked] == alone
    assert card.asked == [12]


def test_vectors_that_do_not_fit_are_searched_on_the_cpu(flat: Path) -> None:
    card = StandInCard(memory=5 * FILE_BYTES)
    cards = Cards([card], 0.5)
    vectors = FaissVectors(flat, cards)
    vectors.copy_to_gpus()
    assert (
        vectors.device
        == "2 of 6 vector files on cuda:0 (0.0 of 0.0 GiB), the others on the CPU (see --gpu-memory)"
    )
    assert cards.used == card.used == 2 * FILE_BYTES
    query = drawn(0, View.TEXT)[3]
    assert best(vectors, query) == best(FaissVectors(flat), query)
    assert card.asked == []  # the average view was copied first


def test_next_generation_takes_the_memory_that_the_previous_one_frees(flat: Path) -> None:
    card = StandInCard(memory=6 * FILE_BYTES)
    cards = Cards([card], 1.0)
    old, new = FaissVectors(flat, cards), FaissVectors(flat, cards)
    old.copy_to_gpus()
    assert old.device.startswith("vectors of 2 relations on cuda:0 (")
    query = drawn(0, View.TEXT)[3]
    assert best(new, query) == best(old, query)
    assert new.device.startswith("0 of 6")
    old.close()
    assert (cards.used, card.used) == (0, 0)
    assert best(old, query) == best(new, query)
    assert new.device.startswith("1 of 6")
    assert cards.used == card.used == FILE_BYTES
    del new
    gc.collect()
    assert (cards.used, card.used) == (0, 0)


def test_full_gpu_is_reported_once_and_left_alone(flat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = StandInCard(memory=6 * FILE_BYTES)
    cards = Cards([card], 1.0)
    vectors = FaissVectors(flat, cards)
    card.memory = int(1.5 * FILE_BYTES)  # another process took the rest
    vectors.copy_to_gpus()
    assert cards.used == card.used == cards.budget == FILE_BYTES
    for query in drawn(0, View.TEXT)[:3]:
        assert best(vectors, query) == best(FaissVectors(flat), query)
    assert capsys.readouterr().err == ("Searching vectors on the CPU, because cuda:0 failed: out of memory\n")


def test_failed_search_is_reported_once_and_repeated_on_the_cpu(
    flat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = StandInCard()
    cards = Cards([card], 1.0)
    vectors, queries = FaissVectors(flat, cards), drawn(0, View.TEXT)[:8]
    best(vectors, queries[0])
    card.broken = "an illegal\n memory access"
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda query: best(vectors, query), queries))
    assert found == [best(FaissVectors(flat), query) for query in queries]
    assert capsys.readouterr().err == (
        "Searching vectors on the CPU, because cuda:0 failed: an illegal memory access\n"
    )
    assert (cards.used, card.used) == (0, 0)


def test_copies_are_divided_among_gpus_and_lanes(flat: Path) -> None:
    cards = [StandInCard(lanes=2), StandInCard(lanes=2)]
    vectors = FaissVectors(flat, Cards(cards, 1.0))
    vectors.copy_to_gpus()
    assert [card.used for card in cards] == [3 * FILE_BYTES] * 2
    assert vectors.device.startswith("vectors of 2 relations on cuda:0, cuda:0 (")
    query = drawn(0, View.TEXT)[5]
    assert best(vectors, query) == best(FaissVectors(flat), query)
    assert cards[0].asked == cards[1].asked != []


def test_other_threads_do_not_wait_for_a_copy() -> None:
    tables, items = CardTables(Cards([StandInCard()], 1.0)), drawn(0, View.TEXT)
    begun, go_on = threading.Event(), threading.Event()

    def slow(rows: ndarray) -> ndarray:
        begun.set()
        assert go_on.wait(60)
        return np.asarray(items[rows])

    def table() -> CardTable | None:
        return tables.table((0, View.TEXT), ITEMS, lambda: (slow, DIM))

    with ThreadPoolExecutor(1) as other:
        copying = other.submit(table)
        assert begun.wait(60)
        assert table() is None
        go_on.set()
        assert copying.result() is table() is not None


def test_copy_made_while_the_index_is_closed_is_freed() -> None:
    card = StandInCard()
    cards = Cards([card], 1.0)
    tables, items = CardTables(cards), drawn(0, View.TEXT)

    def closing(rows: ndarray) -> ndarray:
        tables.close()
        return np.asarray(items[rows])

    table = tables.table((0, View.TEXT), ITEMS, lambda: (closing, DIM))
    assert table is not None
    assert table.nearest(items[:1], 5) is None
    assert (cards.used, card.used) == (0, 0)
    assert tables.table((0, View.TEXT), ITEMS, lambda: (closing, DIM)) is None


def test_small_catalogue_stays_on_the_cpu(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexes.vectors.gpu_vectors.MIN_CARD_ITEMS", ITEMS + 1)
    card = StandInCard()
    vectors = FaissVectors(flat, Cards([card], 1.0))
    vectors.copy_to_gpus()
    best(vectors, drawn(0, View.TEXT)[5])
    assert (card.used, card.asked) == (0, [])
    assert vectors.device == "vectors are searched on the CPU, which is faster below 3,001 items"


def test_scan_returns_candidates_for_each_query(flat: Path) -> None:
    vectors, queries = FaissVectors(flat, Cards([StandInCard()], 1.0)), drawn(1, View.IMAGE)[:5]
    found = vectors.scan(1, View.AVERAGE, queries, 20)
    assert found is not None
    stored = vectors.vectors(1, View.AVERAGE, range(ITEMS))
    for query, rows, scores in zip(queries, found.rows, found.scores, strict=True):
        exact = cosines(stored, query)
        assert np.abs(scores - exact[rows]).max() <= found.error + 1e-7
        assert exact[rows].min() >= np.sort(exact)[-20] - 2 * found.error
    assert vectors.scan(1, View.AVERAGE, queries, 2_049) is None
    assert FaissVectors(flat).scan(1, View.AVERAGE, queries, 20) is None


def test_reason_without_gpus_is_given(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_cards.cache_clear()
    monkeypatch.delattr("faiss.StandardGpuResources", raising=False)
    assert FaissVectors(flat, open_cards(0.8)).device == (
        "vectors are searched on the CPU: FAISS is installed without GPU support"
    )
    monkeypatch.setattr("faiss.StandardGpuResources", object, raising=False)
    monkeypatch.setattr("faiss.get_num_gpus", lambda: 0, raising=False)
    open_cards.cache_clear()
    assert FaissVectors(flat, open_cards(0.8)).device == "vectors are searched on the CPU: FAISS finds no GPU"
    assert "--gpu-memory 0" in FaissVectors(flat, open_cards(0)).device
    open_cards.cache_clear()
    with pytest.raises(NoGpuError, match="finds no GPU"):
        find_cards()


def test_missing_cuda_runtime_is_an_error() -> None:
    with pytest.raises(NoGpuError, match="CUDA runtime"):
        cuda_runtime(("libm.so.6", "libmissing.so"))


def test_errors_of_faiss_are_shortened() -> None:
    long = "Error in void faiss::f() at /f.cpp:1: Error: 'a == b' failed: alloc\n fail (out of memory [2])"
    assert one_line(RuntimeError(long)) == "alloc fail (out of memory [2])"
    assert one_line(MemoryError("no memory")) == "no memory"
