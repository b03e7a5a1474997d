"""Codes for filters that allow many items: what is found, what is written, and when an exact scan stays."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from numpy import ndarray

from indexes.config import IndexKind
from indexes.vectors.code_scan import CodeScan
from indexes.vectors.contract import FileReport, Filtered
from indexes.vectors.faiss_backend import Carried, FaissVectors, write_vectors
from indexes.vectors.faiss_threads import thread_per_core
from indexes.vectors.filter_recall import measure_codes
from model.similarity import View

DIM, COUNT, CENTRES = 32, 4_000, 50


def drawn(seed: int, count: int = COUNT) -> ndarray:
    """Return unit vectors near some centres; most of their length is in a few components, as if trained."""
    draw = np.random.default_rng(seed)
    scale = (2 + np.arange(DIM)) ** -0.5
    centres = np.random.default_rng(0).standard_normal((CENTRES, DIM)) * scale
    vectors = centres[draw.integers(0, CENTRES, count)] + 0.5 * draw.standard_normal((count, DIM)) * scale
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float16)


@pytest.fixture(autouse=True, scope="module")
def few() -> Iterator[None]:
    """Build ANN indexes and codes for few items, and use the codes for few allowed items."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("indexes.vectors.faiss_backend.MAX_SCANNED_ITEMS", 10)
        patch.setattr("indexes.vectors.faiss_backend.MIN_CODED_ITEMS", 1_000)
        patch.setattr("indexes.vectors.filter_plan.MIN_CODED_ROWS", 1_000)
        patch.setattr("indexes.vectors.filter_plan.MAX_CODE_CANDIDATES", 900)
        patch.setattr("indexes.vectors.filter_plan.CODES_PER_CANDIDATE", 1)
        yield


@pytest.fixture(scope="module")
def folder(few: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an index of `drawn(1)` with a graph and codes."""
    folder = tmp_path_factory.mktemp("coded") / "vectors"
    write(folder, drawn(1))
    return folder


@pytest.fixture(scope="module")
def coded(folder: Path) -> FaissVectors:
    return FaissVectors(folder)


def write(
    folder: Path,
    vectors: ndarray,
    kind: IndexKind = "hnsw",
    min_recall: float = 0.9,
    carried: Carried | None = None,
) -> FaissVectors:
    """Write the vectors of one relation."""
    views = [View.AVERAGE]
    write_vectors(folder, 1, DIM, lambda *_: [vectors], kind, min_recall, views=views, carried=carried)
    return FaissVectors(folder)


def report(vectors: FaissVectors) -> FileReport:
    return vectors.report["000.average"]


def far(stored: ndarray, query: ndarray) -> ndarray:
    """Return a filter that allows the half of the items that are nearest to the one farthest from `query`."""
    along = stored @ stored[np.argmin(stored @ query)]
    return np.asarray(along > np.median(along))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.4, 0.9])
def test_copied_codes_and_skipped_codes_give_the_same_candidates(
    share: float, coded: FaissVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = coded.stored(0, View.AVERAGE).codes
    assert codes is not None
    draw = np.random.default_rng(2)
    for query in drawn(3, 10).astype(np.float32):
        allowed = draw.random(COUNT) < share
        found = []
        for copied in (0.0, 1.0):
            monkeypatch.setattr("indexes.vectors.code_scan.MAX_COPIED_CODES", copied)
            found.append(codes.nearest(query, 50, allowed, int(allowed.sum()))[0])
        assert len(found[0]) == 50
        assert allowed[found[0]].all()
        assert sorted(found[0].tolist()) == sorted(found[1].tolist())


@pytest.mark.parametrize("kind", ["hnsw", "ivf-rabitq", "ivf-pq"])
def test_filters_far_from_the_query_are_answered_from_codes_with_exact_scores(
    kind: IndexKind, tmp_path: Path
) -> None:
    vectors, stored = write(tmp_path / "vectors", drawn(1), kind), drawn(1).astype(np.float32)
    assert (report(vectors).code_recall_at_10 or 0) >= 0.9
    hits, methods = 0, Counter[Any]()
    for query in drawn(3, 50).astype(np.float32):
        allowed = far(stored, query)
        found = vectors.search(0, View.AVERAGE, query, 10, allowed)
        assert found.filtered is not None
        assert found.filtered.allowed == allowed.sum()
        methods.update(found.filtered.methods)
        assert allowed[found.rows].all()
        np.testing.assert_allclose(found.scores, stored[found.rows] @ query, atol=1e-6)
        hits += int((found.scores >= np.sort((stored @ query)[allowed])[-10] - 1e-6).sum())
    assert methods["codes"] >= 45
    assert hits / 500 >= 0.9


@pytest.mark.parametrize("k", [1, 10, 60])
def test_more_results_take_more_candidates(k: int, coded: FaissVectors) -> None:
    stored, hits = drawn(1).astype(np.float32), 0
    for query in drawn(3, 20).astype(np.float32):
        found = coded.search(0, View.AVERAGE, query, k, allowed := far(stored, query))
        assert len(found.rows) == k
        hits += int((found.scores >= np.sort((stored @ query)[allowed])[-k] - 1e-6).sum())
    assert hits / (20 * k) >= 0.85


def test_more_equal_items_than_candidates_are_scanned(tmp_path: Path) -> None:
    """Equal items have equal codes, and those that come first in the catalogue are the result."""
    stored = drawn(1)
    stored[1_500:3_500] = stored[1_500]
    vectors = write(tmp_path / "vectors", stored, "ivf-rabitq", min_recall=0)
    query = stored[1_500].astype(np.float32)
    allowed = np.arange(COUNT) >= 1_600
    allowed[3_500:] = False
    found = vectors.search(0, View.AVERAGE, query, 10, allowed)
    assert found.rows.tolist() == [*range(1_600, 1_610)]
    assert found.filtered == Filtered(1_900, ("scan",))


def test_flat_indexes_and_small_catalogues_have_no_codes(tmp_path: Path) -> None:
    for name, kind, count in (("flat", "flat", COUNT), ("small", "hnsw", 999)):
        vectors = write(tmp_path / name, drawn(1, count), kind)  # type: ignore[arg-type]
        assert report(vectors).code_margin is None
        assert not [*(tmp_path / name).glob("*.codes.faiss")]
    query = drawn(1)[0].astype(np.float32)
    found = FaissVectors(tmp_path / "flat").search(0, View.AVERAGE, query, 10, np.ones(COUNT, bool))
    assert found.filtered == Filtered(COUNT, ("scan",))


def test_codes_that_are_not_worth_it_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexes.vectors.filter_recall.MAX_SCANNED_SHARE", -1.0)
    vectors, stored = write(tmp_path / "vectors", drawn(1)), drawn(1).astype(np.float32)
    assert (report(vectors).code_margin, report(vectors).code_recall_at_10) == (None, None)
    assert not [*(tmp_path / "vectors").glob("*.codes.faiss")]
    found = vectors.search(0, View.AVERAGE, stored[0], 10, far(stored, stored[0]))
    assert found.filtered == Filtered(COUNT // 2, ("scan",))


def test_index_of_an_earlier_version_scans(folder: Path, tmp_path: Path) -> None:
    stored = drawn(1).astype(np.float32)
    copytree(folder, tmp_path / "vectors")
    path = tmp_path / "vectors" / "report.json"
    reports = json.loads(path.read_text())
    for one in reports.values():
        del one["code_margin"], one["code_recall_at_10"]
    path.write_text(json.dumps(reports))
    for codes in (tmp_path / "vectors").glob("*.codes.faiss"):
        codes.unlink()
    found = FaissVectors(tmp_path / "vectors").search(0, View.AVERAGE, stored[0], 10, far(stored, stored[0]))
    assert found.filtered == Filtered(COUNT // 2, ("scan",))


@pytest.mark.parametrize("renumbered", [False, True])
def test_next_generation_takes_over_codes_or_writes_them_anew(
    renumbered: bool, folder: Path, tmp_path: Path
) -> None:
    copytree(folder, tmp_path / "old")
    stored, rows = drawn(1), None
    if renumbered:  # the first 100 items are gone, and 200 are new
        stored = np.concatenate([stored[100:], drawn(2, 200)])
        rows = np.arange(COUNT) - 100
        rows[:100] = -1
    vectors = write(tmp_path / "new", stored, carried=Carried(tmp_path / "old", {0: 0}, rows))
    old, new = (tmp_path / name / "000.average.codes.faiss" for name in ("old", "new"))
    assert (old.read_bytes() == new.read_bytes()) is not renumbered
    exact = stored.astype(np.float32)
    codes = vectors.stored(0, View.AVERAGE).codes
    assert codes is not None
    for row in (0, len(stored) - 1):  # each item is its own best candidate, old and new
        found, estimates = codes.nearest(exact[row], 100, np.ones(len(stored), bool), len(stored))
        assert (np.diff(estimates) <= 0).all()
        assert row in found[:5]


def test_report_counts_the_bytes_of_codes(folder: Path, coded: FaissVectors) -> None:
    sizes = [path.stat().st_size for path in folder.glob("000.average.*")]
    assert len(sizes) == 3
    assert report(coded).bytes_per_vector == pytest.approx(sum(sizes) / COUNT, abs=0.1)
    codes = (folder / "000.average.codes.faiss").stat().st_size
    rotation = 4 * DIM * DIM
    assert codes - rotation == pytest.approx(COUNT * CodeScan.bytes_per_vector(DIM), rel=0.01)


class Shifted:
    """Codes whose estimates are too low: by 0.1 for every twentieth item, by up to 0.05 for the others."""

    def __init__(self, stored: ndarray) -> None:
        self._stored = stored
        self._error = np.where(np.arange(len(stored)) % 20 == 0, 0.1, 0.05 * np.arange(len(stored)) % 0.05)

    def nearest(self, query: ndarray, candidates: int, allowed: ndarray, few: int) -> tuple[ndarray, ndarray]:
        assert few == allowed.sum()
        estimates = np.where(allowed, self._stored @ query - self._error, -np.inf)
        rows = np.argsort(-estimates)[:candidates]
        return rows, estimates[rows]


@pytest.mark.parametrize(("min_recall", "least", "most"), [(0.9, 0.0, 0.05), (0.99, 0.1, 0.1001)])
def test_margin_covers_the_errors_of_as_many_estimates_as_the_recall_asks_for(
    min_recall: float, least: float, most: float, coded: FaissVectors
) -> None:
    stored = drawn(1).astype(np.float32)
    codes: Any = Shifted(stored)
    asked = [(row, stored[row]) for row in range(30)]
    searched = replace(coded.stored(0, View.AVERAGE), codes=codes, least_filter_share=None)
    with thread_per_core() as pool:
        choice = measure_codes(
            codes, lambda margin: replace(searched, code_margin=margin), asked, min_recall, pool
        )
    assert choice.code_margin is not None
    assert least <= choice.code_margin <= most
    assert choice.code_recall_at_10 is not None
    assert min_recall <= choice.code_recall_at_10 <= 1


@pytest.mark.parametrize("share", [0.4, 0.6, 0.95])
def test_more_items_about_as_near_as_the_results_than_candidates_are_scanned(
    share: float, coded: FaissVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter that excludes exactly the nearest items leaves many that are about as near as the results."""
    monkeypatch.setattr("indexes.vectors.filter_plan.MAX_CODE_CANDIDATES", 200)
    monkeypatch.setattr("indexes.vectors.vector_file.CANDIDATES_PER_RESULT", 1)
    stored = drawn(1).astype(np.float32)
    for query in drawn(3, 20).astype(np.float32):
        scores = stored @ query
        allowed = scores <= np.quantile(scores, share)
        found = coded.search(0, View.AVERAGE, query, 3, allowed)
        assert found.filtered == Filtered(int(allowed.sum()), ("scan",))
        np.testing.assert_allclose(found.scores, np.sort(scores[allowed])[::-1][:3], atol=1e-6)
