"""The FAISS implementation against the same search written in NumPy."""

from pathlib import Path

import numpy as np
import pytest
from numpy import ndarray

from indexes.faiss_vectors import FaissVectors
from indexes.vectors import Neighbours
from model.encoding import Encoding
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


@pytest.fixture
def vectors(encoding: Encoding) -> FaissVectors:
    vectors = FaissVectors.empty(RELATIONS, DIM)
    vectors.add(encoding)
    return vectors


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


@pytest.mark.parametrize("excluded", [0, 3, 57, 58])
def test_the_excluded_row_is_left_out_and_another_takes_its_place(
    vectors: FaissVectors, encoding: Encoding, excluded: int
) -> None:
    query = encoding.text[0, 0]
    everything = vectors.search(0, View.TEXT, query, ITEMS).rows.tolist()
    found = vectors.search(0, View.TEXT, query, 10, excluded).rows.tolist()
    assert found == [row for row in everything if row != excluded][:10]


def test_a_score_is_never_above_one(vectors: FaissVectors, encoding: Encoding) -> None:
    for row in range(ITEMS):
        assert vectors.search(0, View.TEXT, encoding.text[row, 0] * 1.001, 1).scores.max() <= 1.0


def test_an_index_without_items_finds_nothing() -> None:
    found = FaissVectors.empty(1, DIM).search(0, View.TEXT, unit(DIM), 5)
    assert (found.rows.size, found.scores.size) == (0, 0)


def test_vectors_come_back_rounded_to_half_precision(vectors: FaissVectors, encoding: Encoding) -> None:
    found = vectors.vectors(1, View.AVERAGE, [5, 2])
    np.testing.assert_array_equal(found, encoding.average[[5, 2], 1].astype(np.float16))


def test_added_in_batches_or_at_once_is_the_same(vectors: FaissVectors, encoding: Encoding) -> None:
    batched = FaissVectors.empty(RELATIONS, DIM)
    for start in range(0, ITEMS, 7):
        batched.add(Encoding(encoding.text[start : start + 7], encoding.image[start : start + 7]))
    rows = list(range(ITEMS))
    np.testing.assert_array_equal(batched.vectors(1, View.IMAGE, rows), vectors.vectors(1, View.IMAGE, rows))


def test_saved_and_opened_it_answers_the_same(
    vectors: FaissVectors, encoding: Encoding, tmp_path: Path
) -> None:
    vectors.save(tmp_path / "vectors")
    opened = FaissVectors.open(tmp_path / "vectors", RELATIONS)
    assert (opened.count, opened.dim) == (ITEMS, DIM)
    query = encoding.image[4, 1]
    np.testing.assert_array_equal(
        opened.search(1, View.IMAGE, query, 9).rows, vectors.search(1, View.IMAGE, query, 9).rows
    )
