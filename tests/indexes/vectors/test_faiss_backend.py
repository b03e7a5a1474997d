"""Behaviour specific to FAISS: files that do not depend on the batch size, and measured recall."""

import gc
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest

from indexes.config import FILE_KINDS, IndexKind
from indexes.vectors.contract import Filtered
from indexes.vectors.faiss_backend import FaissVectors, write_vectors
from indexes.vectors.filter_recall import FilterChoice
from model.embeddings.encoding import Encoding
from model.errors import InputError
from model.similarity import View

from .test_contract import DIM, RELATIONS, source, tied


def write(
    folder: Path, encoding: Encoding, kind: IndexKind, batch: int = 1_000, min_recall: float = 0
) -> None:
    _, relations, dim = encoding.text.shape
    write_vectors(folder, relations, dim, source(encoding, batch), kind, min_recall)


def test_files_do_not_depend_on_batch_size(tmp_path: Path) -> None:
    encoding = tied()
    write(tmp_path / "batched", encoding, "flat", batch=7)
    write(tmp_path / "whole", encoding, "flat")
    for path in sorted((tmp_path / "whole").glob("*.faiss")):
        assert (tmp_path / "batched" / path.name).read_bytes() == path.read_bytes()


MANY, TOPICS = 12_000, 300


@pytest.fixture(scope="module")
def topics() -> Encoding:
    """Return items in overlapping clusters of unequal size, like real embeddings."""
    rng = np.random.default_rng(5)
    centres = rng.standard_normal((TOPICS, DIM))
    topic = rng.zipf(1.5, MANY) % TOPICS
    text, image = (
        (centres[topic] + 0.7 * rng.standard_normal((MANY, DIM)))[:, None].astype(np.float32) for _ in "TI"
    )
    return Encoding(*(view / np.linalg.norm(view, axis=-1, keepdims=True) for view in (text, image)))


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_reaches_min_recall_with_exact_scores(kind: IndexKind, topics: Encoding, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("kind", ["hnsw", "ivf-rabitq"])
def test_wide_filters_use_the_ann_index_and_fall_back_to_an_exact_scan(
    kind: IndexKind, topics: Encoding, tmp_path: Path
) -> None:
    write(tmp_path / "vectors", topics, kind, min_recall=0.95)
    vectors = FaissVectors(tmp_path / "vectors")
    report = vectors.report["000.average"]
    assert report.least_filter_share is not None
    assert all(one.recall_at_10 >= 0.95 for one in report.filters if one.share >= report.least_filter_share)
    stored = topics.average[:, 0].astype(np.float16).astype(np.float32)
    draw = np.random.default_rng(8)
    hits, methods = 0, list[str]()
    for row in draw.integers(0, MANY, 40).tolist():
        scores = stored @ stored[row]
        allowed = draw.random(MANY) < 0.9
        found = vectors.search(0, View.AVERAGE, stored[row], 10, allowed, frozenset({row}))
        assert found.filtered is not None
        assert found.filtered.allowed == allowed.sum() - allowed[row]
        methods += found.filtered.methods
        allowed[row] = False
        assert allowed[found.rows].all()
        hits += (found.scores >= np.sort(scores[allowed])[-10] - 1e-5).sum()
        far = scores < np.quantile(scores, 0.8)
        distant = vectors.search(0, View.AVERAGE, stored[row], 10, far)
        np.testing.assert_allclose(distant.scores, np.sort(scores[far])[::-1][:10], atol=1e-5)
        assert distant.filtered == Filtered(int(far.sum()), ("scan",))
        assert vectors.search(0, View.AVERAGE, stored[row], 10).filtered is None
    assert methods.count("ann") >= 38
    assert hits / 400 >= 0.93


def test_filter_scans_if_the_recall_of_filters_was_insufficient_or_not_measured(
    topics: Encoding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "indexes.vectors.faiss_backend.measure_filters", lambda *_: FilterChoice((), None, None)
    )
    write(tmp_path / "vectors", topics, "hnsw", min_recall=0.95)
    path = tmp_path / "vectors" / "report.json"
    reports = json.loads(path.read_text())
    for report in reports.values():  # as an earlier version of rcml wrote it
        del report["filters"], report["least_filter_share"], report["filter_effort"]
    path.write_text(json.dumps(reports))
    file = FaissVectors(tmp_path / "vectors").stored(0, View.AVERAGE)
    found = file.search_allowed(topics.average[5, 0], 10, np.ones(MANY, bool))
    assert (len(found.rows), found.filtered) == (10, Filtered(MANY, ("scan",)))


def test_rejects_unreachable_min_recall(
    topics: Encoding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.vectors.ann_index.HnswIndex.SEARCH_PARAMETERS", (1, 2))
    with pytest.raises(
        InputError, match=r"Index kind hnsw reaches a recall of at most 0\.\d+ .* --kind flat"
    ):
        write(tmp_path / "vectors", topics, "hnsw", min_recall=0.9999)


def test_reads_every_half_precision_number_exactly(tmp_path: Path) -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = every[np.isfinite(every)].reshape(-1, 32)
    write_vectors(tmp_path / "vectors", 1, 32, lambda relation, view: [halves], views=[View.AVERAGE])
    found = FaissVectors(tmp_path / "vectors").vectors(0, View.AVERAGE, range(len(halves)))
    np.testing.assert_array_equal(found.view(np.uint32), halves.astype(np.float32).view(np.uint32))


def test_unmaps_files_of_released_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise every generation that a server has replaced would keep occupying the disk."""
    monkeypatch.setattr("indexes.vectors.faiss_backend.MAX_SCANNED_ITEMS", 0)
    monkeypatch.setattr("indexes.vectors.faiss_backend.RECALL_QUERIES", 20)
    encoding = tied()
    for kind in FILE_KINDS:
        write(tmp_path / kind, encoding, kind)
        opened = FaissVectors(tmp_path / kind)
        assert len(opened.search(0, View.TEXT, encoding.text[0, 0], 3).rows) == 3
        assert str(tmp_path) in Path("/proc/self/maps").read_text()
        del opened
        gc.collect()
        assert str(tmp_path) not in Path("/proc/self/maps").read_text(), kind


@pytest.mark.parametrize("kind", ["hnsw", "ivf-rabitq", "ivf-pq"])
def test_processes_share_the_memory_of_an_ann_index(
    kind: IndexKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.vectors.faiss_backend.MAX_SCANNED_ITEMS", 0)
    monkeypatch.setattr("indexes.vectors.faiss_backend.RECALL_QUERIES", 20)
    encoding = tied()
    write(tmp_path / "vectors", encoding, kind)
    opened = FaissVectors(tmp_path / "vectors")
    assert len(opened.search(0, View.TEXT, encoding.text[0, 0], 3).rows) == 3
    for name in ("000.text.faiss", f"000.text.{kind}.faiss"):
        assert str(tmp_path / "vectors" / name) in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("kind", FILE_KINDS)
def test_search_uses_one_thread_when_called_from_any_thread(
    kind: IndexKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.vectors.faiss_backend.MAX_SCANNED_ITEMS", 0)
    monkeypatch.setattr("indexes.vectors.faiss_backend.RECALL_QUERIES", 20)
    encoding = tied()
    write(tmp_path / "vectors", encoding, kind)
    vectors = FaissVectors(tmp_path / "vectors")

    def threads() -> tuple[int, int]:
        faiss.omp_set_num_threads(2)
        before = faiss.omp_get_max_threads()
        vectors.search(0, View.TEXT, encoding.text[0, 0], 3)
        return before, faiss.omp_get_max_threads()

    faiss.omp_set_num_threads(1)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(threads).result() == (2, 1)


def test_writing_uses_all_processors_and_restores_thread_count(tmp_path: Path) -> None:
    seen = []
    faiss.omp_set_num_threads(1)
    write_vectors(
        tmp_path / "vectors",
        RELATIONS,
        DIM,
        source(tied()),
        advance=lambda: seen.append(faiss.omp_get_max_threads()),
    )
    assert seen == [os.cpu_count()] * RELATIONS * len(View)
    assert faiss.omp_get_max_threads() == 1
