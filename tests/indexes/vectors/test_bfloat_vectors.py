"""Scans of bfloat16 vectors, and products in one thread, against plain NumPy."""

import numpy as np
import pytest

from indexes.vectors.bfloat_vectors import BfloatVectors, bfloat16, inner_products, padded_width

DRAWN = np.random.default_rng(0).standard_normal((500, 32)).astype(np.float32)


def filled(numbers: np.ndarray) -> BfloatVectors:
    count, dim = numbers.shape
    vectors = BfloatVectors(count, dim)
    vectors.rows[:, :dim] = bfloat16(numbers)
    return vectors


def test_bfloat16_rounds_to_eight_significant_bits() -> None:
    numbers = np.array([[1.0, -2.5, 0.0, 1 + 2**-8, 1 + 2**-9, 1e-30, -3e30]], np.float32)
    back = (bfloat16(numbers).astype(np.uint32) << 16).view(np.float32)
    assert back[0, :5].tolist() == [1.0, -2.5, 0.0, 1 + 2**-7, 1.0]
    np.testing.assert_allclose(back, numbers, rtol=2**-8)


def test_finds_greatest_inner_products() -> None:
    query = DRAWN[3, :20]  # shorter than the rows, which are filled up with zeros
    vectors = filled(DRAWN[:, :20])
    assert vectors.rows.shape == (500, 32)
    found = vectors.nearest(query, 500)
    np.testing.assert_allclose(found.scores, DRAWN[found.rows, :20] @ query, atol=0.1)
    assert found.rows[0] == 3
    assert (np.diff(found.scores) <= 0).all()
    assert sorted(found.rows.tolist()) == list(range(500))


def test_finds_only_allowed_rows() -> None:
    vectors = filled(DRAWN)
    allowed = np.zeros(500, bool)
    allowed[[7, 200, 499]] = True
    assert set(vectors.nearest(DRAWN[0], 10, allowed).rows.tolist()) == {7, 200, 499}
    assert len(vectors.nearest(DRAWN[0], 10, np.zeros(500, bool)).rows) == 0


def test_searches_no_rows() -> None:
    assert len(filled(DRAWN[:0]).nearest(DRAWN[0], 10).rows) == 0


@pytest.mark.parametrize("rows", [0, 1, 7, 500])
def test_inner_products_equal_numpy(rows: int) -> None:
    np.testing.assert_allclose(
        inner_products(DRAWN[:rows], DRAWN[9]), DRAWN[:rows] @ DRAWN[9], rtol=1e-5, atol=1e-5
    )


def test_width_is_filled_up() -> None:
    assert [padded_width(dim) for dim in (1, 16, 17, 64)] == [16, 16, 32, 64]
