"""Every vector backend and index kind returns the same results as a search written in NumPy."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy import ndarray

from indexes.config import FILE_KINDS
from indexes.vectors.backends import open_vectors
from indexes.vectors.contract import Neighbours, Source, VectorIndex
from indexes.vectors.faiss_backend import write_vectors
from indexes.vectors.gpu_card import NoGpuError, find_cards
from indexes.vectors.gpu_vectors import CPU, Cards
from indexes.vectors.milvus.milvus_writer import write_milvus
from model.embeddings.encoding import Encoding
from model.similarity import View

from .stand_in_card import StandInCard

ITEMS, RELATIONS, DIM = 60, 2, 24


def has_gpu() -> bool:
    """Return whether FAISS can use a GPU here."""
    try:
        return bool(find_cards())
    except NoGpuError:
        return False


def unit(*shape: int) -> ndarray:
    vectors = np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def tied() -> Encoding:
    """Return vectors in which every third item has the text of item 0, so that ties straddle any cutoff."""
    text = unit(ITEMS, RELATIONS, DIM)
    text[::3] = text[0]
    return Encoding(text, -text[::-1].copy())


@pytest.fixture
def encoding() -> Encoding:
    return tied()


def source(encoding: Encoding, batch: int = 1_000) -> Source:
    """Return a source that yields the vectors of an encoding, `batch` rows at a time."""

    def chunks(relation: int, view: View) -> Iterator[ndarray]:
        vectors = encoding.view(view)[:, relation]
        return (vectors[start : start + batch] for start in range(0, len(vectors), batch))

    return chunks


BACKENDS = [
    *FILE_KINDS,
    *(f"{kind} on a stand-in" for kind in FILE_KINDS),
    *(pytest.param(f"{kind} on a GPU", marks=pytest.mark.gpu) for kind in FILE_KINDS if has_gpu()),
    "milvus-lite",
    "milvus-lite ivf-flat",
    "milvus-lite-server",
    pytest.param("milvus-standalone", marks=pytest.mark.milvus),
    pytest.param("milvus-standalone ivf-flat", marks=pytest.mark.milvus),
]

Keep = Callable[[Encoding], VectorIndex]


@pytest.fixture(scope="session")
def written() -> dict[tuple[str, tuple[int, ...]], Path]:
    """Return the folders of Milvus vectors, which tests share: a whole Milvus takes seconds to write and to load them.

    The keys are the backend and the shape of the encoding.
    """
    return {}


@pytest.fixture(params=BACKENDS)
def keep(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    written: dict[tuple[str, tuple[int, ...]], Path],
) -> Iterator[Keep]:
    """Return a function that stores vectors in one backend. FAISS uses its ANN index or a GPU even for so few items."""
    opened: list[VectorIndex] = []
    monkeypatch.setattr("indexes.vectors.faiss_backend.MAX_SCANNED_ITEMS", 0)
    monkeypatch.setattr("indexes.vectors.faiss_backend.RECALL_QUERIES", 20)
    monkeypatch.setattr("indexes.vectors.milvus.milvus_writer.MAX_SCANNED_ITEMS", 0)
    monkeypatch.setattr("indexes.vectors.gpu_vectors.MIN_CARD_ITEMS", 0)
    monkeypatch.setattr("indexes.vectors.gpu_vectors.MIN_LANE_ITEMS", 9)
    kind, _, device = request.param.partition(" on a ")
    cards = cards_of(device)

    def keep(encoding: Encoding) -> VectorIndex:
        _, relations, dim = encoding.text.shape
        chunks = source(encoding, 25)
        if not request.param.startswith("milvus"):
            folder = tmp_path / "vectors"
            few = len(encoding.text) == 0
            write_vectors(folder, relations, dim, chunks, kind, 0 if few else 0.999)
        elif (key := (request.param, encoding.text.shape)) in written:
            folder = written[key]
        else:
            name, _, own = request.param.partition(" ")
            uri = request.getfixturevalue(name.replace("-", "_"))
            generation = tmp_path / "index" / "generation-000001"
            generation.parent.mkdir()
            folder = tmp_path / "vectors"
            # The items are too few for a recall: every choice of cells but all is too few for most results.
            write_milvus(folder, generation, uri, relations, dim, chunks, own or "flat", 0.999)
            written[key] = folder
        opened.append(open_vectors(folder, cards))
        return opened[-1]

    yield keep
    for one in opened:
        one.close()


def cards_of(device: str) -> Cards:
    """Return GPUs of FAISS, stand-ins for two GPUs, or none."""
    match device:
        case "GPU":
            return Cards(find_cards(), 0.5)
        case "stand-in":
            return Cards([StandInCard(), StandInCard()], 1.0)
    return CPU


@pytest.fixture
def vectors(keep: Keep, encoding: Encoding) -> VectorIndex:
    return keep(encoding)


def reference(encoding: Encoding, relation: int, view: View, query: ndarray, k: int) -> Neighbours:
    stored = encoding.view(view)[:, relation].astype(np.float16).astype(np.float32)
    scores = np.einsum("id,d->i", stored, query)
    rows = np.lexsort((np.arange(ITEMS), -scores.round(5)))[:k]
    return Neighbours(rows, np.clip(scores[rows], -1, 1))


@pytest.mark.parametrize("view", View)
@pytest.mark.parametrize("k", [1, 7, 25, ITEMS, 10 * ITEMS])
def test_search_matches_numpy_in_rows_and_scores(
    vectors: VectorIndex, encoding: Encoding, view: View, k: int
) -> None:
    query = encoding.text[0, 1]
    found, expected = vectors.search(1, view, query, k), reference(encoding, 1, view, query, k)
    assert found.rows.tolist() == expected.rows.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


@pytest.mark.parametrize("k", [1, 5, 19, 20, 21])
def test_returns_equal_vectors_in_catalogue_order(vectors: VectorIndex, encoding: Encoding, k: int) -> None:
    found = vectors.search(0, View.TEXT, encoding.text[0, 0], k)
    assert found.rows.tolist()[:20] == list(range(0, ITEMS, 3))[:k]


@pytest.mark.parametrize(
    "dropped", [{0}, {3}, {57}, {58}, {0, 3, 6, 9}, set(range(0, ITEMS, 2)), set(range(ITEMS))]
)
def test_replaces_dropped_rows_with_next_nearest_rows(
    vectors: VectorIndex, encoding: Encoding, dropped: set[int]
) -> None:
    query = encoding.text[0, 0]
    everything = vectors.search(0, View.TEXT, query, ITEMS).rows.tolist()
    found = vectors.search(0, View.TEXT, query, 10, dropped=frozenset(dropped)).rows.tolist()
    assert found == [row for row in everything if row not in dropped][:10]


@given(share=st.floats(0, 1), k=st.integers(1, ITEMS), seed=st.integers(0, 1000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_finds_nearest_allowed_rows_exactly(
    vectors: VectorIndex, encoding: Encoding, share: float, k: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    allowed, dropped = rng.random(ITEMS) < share, frozenset(rng.integers(0, ITEMS, 3).tolist())
    query = encoding.image[seed % ITEMS, 1]
    everything = reference(encoding, 1, View.TEXT, query, ITEMS).rows.tolist()
    found = vectors.search(1, View.TEXT, query, k, allowed, dropped)
    assert found.rows.tolist() == [row for row in everything if allowed[row] and row not in dropped][:k]


def test_scores_never_exceed_one(vectors: VectorIndex, encoding: Encoding) -> None:
    for row in range(ITEMS):
        assert vectors.search(0, View.TEXT, encoding.text[row, 0] * 1.001, 1).scores.max() <= 1.0


@pytest.mark.parametrize("allowed", [None, np.ones(0, bool)])
def test_index_without_items_returns_no_results(keep: Keep, allowed: ndarray | None) -> None:
    nothing = np.empty((0, 1, DIM), np.float32)
    vectors = keep(Encoding(nothing, nothing))
    found = vectors.search(0, View.TEXT, unit(DIM), 5, allowed)
    assert (found.rows.size, found.scores.size) == (0, 0)
    assert vectors.vectors(0, View.TEXT, []).shape == (0, DIM)
    assert (vectors.count, vectors.dim) == (0, DIM)


def test_returns_vectors_rounded_to_half_precision(vectors: VectorIndex, encoding: Encoding) -> None:
    found = vectors.vectors(1, View.AVERAGE, [5, 2])
    np.testing.assert_array_equal(found, encoding.average[[5, 2], 1].astype(np.float16))


def test_opened_index_has_written_item_count_and_dim(vectors: VectorIndex) -> None:
    assert (vectors.count, vectors.dim) == (ITEMS, DIM)


def test_stored_vector_scores_one_against_itself(vectors: VectorIndex, encoding: Encoding) -> None:
    for row in range(ITEMS):
        own = vectors.vectors(1, View.IMAGE, [row])[0]
        assert vectors.search(1, View.IMAGE, own, 1).scores[0] == pytest.approx(1.0, abs=1e-3)


def test_returns_vectors_in_requested_order_with_repetitions(
    vectors: VectorIndex, encoding: Encoding
) -> None:
    rows = [7, 0, 7, ITEMS - 1, 1]
    stored = encoding.image[rows, 0].astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(vectors.vectors(0, View.IMAGE, rows), stored)


def test_report_counts_items_of_each_relation_and_view(vectors: VectorIndex) -> None:
    assert {name: report.items for name, report in vectors.report.items()} == {
        f"{relation:03d}.{view}": ITEMS for relation in range(RELATIONS) for view in View
    }


def test_concurrent_searches_return_correct_results(vectors: VectorIndex, encoding: Encoding) -> None:
    def ask(row: int) -> list[int]:
        rows: list[int] = vectors.search(1, View.IMAGE, encoding.image[row, 1], 5).rows.tolist()
        return rows

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(ask, range(ITEMS)))
    assert found == [ask(row) for row in range(ITEMS)]
    # The rows left out here have equal vectors.
    assert all(found[row][0] == row for row in range(ITEMS) if row % 3 != 2)
