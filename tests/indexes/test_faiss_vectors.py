"""Every kind of FAISS index against the same search written in NumPy."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy import ndarray

from indexes.config import IndexKind
from indexes.faiss_vectors import FaissVectors, write_vectors
from indexes.vectors import Neighbours
from model.encoding import Encoding
from model.errors import InputError
from model.records import View

ITEMS, RELATIONS, DIM = 60, 2, 24


def unit(*shape: int) -> ndarray:
    vectors = np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture
def encoding() -> Encoding:
    """Every third item has the text of item 0, so that ties straddle any cut."""
    text = unit(ITEMS, RELATIONS, DIM)
    text[::3] = text[0]
    return Encoding(text, -text[::-1].copy())


def write(
    folder: Path, encoding: Encoding, kind: IndexKind, batch: int = 1_000, min_recall: float = 0
) -> None:
    _, relations, dim = encoding.text.shape

    def source(relation: int, view: View) -> Iterator[ndarray]:
        vectors = encoding.view(view)[:, relation]
        return (vectors[start : start + batch] for start in range(0, len(vectors), batch))

    write_vectors(folder, relations, dim, source, kind, min_recall)


@pytest.fixture(params=["flat", "hnsw", "ivf-rabitq"])
def vectors(
    encoding: Encoding, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> FaissVectors:
    """The search is narrowed, few as the items are."""
    monkeypatch.setattr("indexes.faiss_vectors.SCANNED", 0)
    monkeypatch.setattr("indexes.faiss_vectors.SAMPLE", 20)
    write(tmp_path / "vectors", encoding, request.param, min_recall=0.999)
    return FaissVectors(tmp_path / "vectors")


def reference(encoding: Encoding, relation: int, view: View, query: ndarray, k: int) -> Neighbours:
    stored = encoding.view(view)[:, relation].astype(np.float16).astype(np.float32)
    scores = np.einsum("id,d->i", stored, query)
    rows = np.lexsort((np.arange(ITEMS), -scores.round(5)))[:k]
    return Neighbours(rows, np.clip(scores[rows], -1, 1))


@pytest.mark.parametrize("view", View)
@pytest.mark.parametrize("k", [1, 7, 25, ITEMS, 10 * ITEMS])
def test_search_agrees_with_numpy_in_rows_and_scores(
    vectors: FaissVectors, encoding: Encoding, view: View, k: int
) -> None:
    query = encoding.text[0, 1]
    found, expected = vectors.search(1, view, query, k), reference(encoding, 1, view, query, k)
    assert found.rows.tolist() == expected.rows.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


@pytest.mark.parametrize("k", [1, 5, 19, 20, 21])
def test_items_with_equal_vectors_come_in_catalogue_order(
    vectors: FaissVectors, encoding: Encoding, k: int
) -> None:
    found = vectors.search(0, View.TEXT, encoding.text[0, 0], k)
    assert found.rows.tolist()[:20] == list(range(0, ITEMS, 3))[:k]


@pytest.mark.parametrize(
    "dropped", [{0}, {3}, {57}, {58}, {0, 3, 6, 9}, set(range(0, ITEMS, 2)), set(range(ITEMS))]
)
def test_dropped_rows_are_left_out_and_others_take_their_places(
    vectors: FaissVectors, encoding: Encoding, dropped: set[int]
) -> None:
    query = encoding.text[0, 0]
    everything = vectors.search(0, View.TEXT, query, ITEMS).rows.tolist()
    found = vectors.search(0, View.TEXT, query, 10, dropped=frozenset(dropped)).rows.tolist()
    assert found == [row for row in everything if row not in dropped][:10]


@given(share=st.floats(0, 1), k=st.integers(1, ITEMS), seed=st.integers(0, 1000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_of_the_allowed_rows_the_nearest_are_found_exactly(
    vectors: FaissVectors, encoding: Encoding, share: float, k: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    allowed, dropped = rng.random(ITEMS) < share, frozenset(rng.integers(0, ITEMS, 3).tolist())
    query = encoding.image[seed % ITEMS, 1]
    everything = reference(encoding, 1, View.TEXT, query, ITEMS).rows.tolist()
    found = vectors.search(1, View.TEXT, query, k, allowed, dropped)
    assert found.rows.tolist() == [row for row in everything if allowed[row] and row not in dropped][:k]


def test_a_score_is_never_above_one(vectors: FaissVectors, encoding: Encoding) -> None:
    for row in range(ITEMS):
        assert vectors.search(0, View.TEXT, encoding.text[row, 0] * 1.001, 1).scores.max() <= 1.0


@pytest.mark.parametrize("kind", get_args(IndexKind))
def test_an_index_without_items_finds_nothing(kind: IndexKind, tmp_path: Path) -> None:
    nothing = np.empty((0, 1, DIM), np.float32)
    write(tmp_path / "vectors", Encoding(nothing, nothing), kind)
    found = FaissVectors(tmp_path / "vectors").search(0, View.TEXT, unit(DIM), 5)
    assert (found.rows.size, found.scores.size) == (0, 0)


def test_vectors_come_back_rounded_to_half_precision(vectors: FaissVectors, encoding: Encoding) -> None:
    found = vectors.vectors(1, View.AVERAGE, [5, 2])
    np.testing.assert_array_equal(found, encoding.average[[5, 2], 1].astype(np.float16))


def test_written_in_batches_or_at_once_is_the_same(encoding: Encoding, tmp_path: Path) -> None:
    write(tmp_path / "batched", encoding, "flat", batch=7)
    write(tmp_path / "whole", encoding, "flat")
    for path in sorted((tmp_path / "whole").glob("*.faiss")):
        assert (tmp_path / "batched" / path.name).read_bytes() == path.read_bytes()


def test_opened_it_has_the_items_that_were_written(vectors: FaissVectors) -> None:
    assert (vectors.count, vectors.dim) == (ITEMS, DIM)


MANY, TOPICS = 12_000, 300


@pytest.fixture(scope="module")
def topics() -> Encoding:
    """Items about topics, as embeddings are: clusters of unequal size that overlap."""
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((TOPICS, DIM))
    topic = rng.zipf(1.5, MANY) % TOPICS
    text, image = (
        (centres[topic] + 0.7 * rng.standard_normal((MANY, DIM)))[:, None].astype(np.float32) for _ in "TI"
    )
    return Encoding(*(view / np.linalg.norm(view, axis=-1, keepdims=True) for view in (text, image)))


@pytest.mark.parametrize("kind", get_args(IndexKind))
def test_of_many_items_nearly_all_the_nearest_are_found_at_their_true_scores(
    kind: IndexKind, topics: Encoding, tmp_path: Path
) -> None:
    write(tmp_path / "vectors", topics, kind, min_recall=0.95)
    vectors = FaissVectors(tmp_path / "vectors")
    stored = topics.average[:, 0].astype(np.float16).astype(np.float32)
    queries = np.random.default_rng(6).integers(0, MANY, 100)
    hits = 0
    for row in queries.tolist():
        found = vectors.search(0, View.AVERAGE, stored[row], 10, dropped=frozenset({row}))
        scores = stored @ stored[row]
        np.testing.assert_allclose(found.scores, np.clip(scores[found.rows], -1, 1), atol=1e-5)
        assert (np.diff(found.scores) <= 0).all()
        assert row not in found.rows
        hits += np.isin(found.rows, np.argsort(-scores)[:11]).sum()
    report = vectors.report["000.average"]
    assert hits / (10 * len(queries)) >= (1.0 if kind == "flat" else 0.93)
    assert report.kind == kind
    assert (report.recall_at_10 is None) == (kind == "flat")
    assert all((one.recall_at_10 or 1) >= 0.95 for one in vectors.report.values())


def test_a_recall_that_a_kind_cannot_reach_is_refused(
    topics: Encoding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.narrowing.Graph.EFFORTS", (1, 2))
    with pytest.raises(InputError, match=r"kind hnsw reaches a recall of 0\.\d+ at most .* --kind flat"):
        write(tmp_path / "vectors", topics, "hnsw", min_recall=0.99)


def test_an_own_vector_scores_one(vectors: FaissVectors, encoding: Encoding) -> None:
    for row in range(ITEMS):
        own = vectors.vectors(1, View.IMAGE, [row])[0]
        assert vectors.search(1, View.IMAGE, own, 1).scores[0] == pytest.approx(1.0, abs=1e-3)
