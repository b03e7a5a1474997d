"""ANN indexes made from those of the previous generation: only codes of changed items are computed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexes.config import IndexKind
from indexes.vectors.ann_index import ANN_INDEXES, IvfRabitqIndex
from indexes.vectors.contract import Source
from indexes.vectors.faiss_backend import Carried, FaissVectors, write_vectors
from model.errors import InputError
from model.similarity import View

DIM, COUNT = 16, 3_000


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build ANN indexes for few items."""
    monkeypatch.setattr("indexes.vectors.faiss_backend.MAX_SCANNED_ITEMS", 10)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the list of the ANN indexes that are built from scratch."""
    paths: list[Path] = []
    for kind in ANN_INDEXES.values():
        write = kind.write

        def noted(exact: Any, path: Path, write: Any = write) -> None:
            paths.append(path)
            write(exact, path)

        monkeypatch.setattr(kind, "write", noted)
    return paths


def drawn(seed: int, count: int) -> np.ndarray:
    """Return unit vectors near 40 centres, rounded to half precision."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((40, DIM))
    vectors = centres[rng.integers(0, 40, count)] + 0.5 * rng.standard_normal((count, DIM))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float16)


def source(vectors: np.ndarray) -> Source:
    def chunks(relation: int, view: View) -> Iterator[np.ndarray]:
        yield np.roll(vectors, relation, axis=1)

    return chunks


def write(
    folder: Path,
    vectors: np.ndarray,
    kind: IndexKind,
    carried: Carried | None = None,
    min_recall: float = 0.9,
) -> FaissVectors:
    """Write the vectors under two relations; the second relation's vectors are those of the first, rotated."""
    views = [View.AVERAGE]
    write_vectors(folder, 2, DIM, source(vectors), kind, min_recall, views=views, carried=carried)
    return FaissVectors(folder)


def changed(gone: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the new row of each item, and the vectors without those at `gone` and with 50 new ones."""
    remains = np.ones(COUNT, bool)
    remains[gone] = False
    renumbered = np.where(remains, np.cumsum(remains) - 1, -1)
    return renumbered, np.concatenate([drawn(1, COUNT)[remains], drawn(2, 50)])


@pytest.mark.parametrize("gone", [[], [0], [COUNT - 1], [*range(5, 900, 7)]], ids=len)
def test_carried_index_finds_what_a_scan_finds(gone: list[int], tmp_path: Path, built: list[Path]) -> None:
    write(tmp_path / "old", drawn(1, COUNT), "ivf-rabitq")
    built.clear()
    renumbered, vectors = changed(np.asarray(gone, np.int64))
    carried = Carried(tmp_path / "old", {0: 0, 1: 1}, renumbered)
    found = write(tmp_path / "new", vectors, "ivf-rabitq", carried)
    assert built == []
    assert all((report.recall_at_10 or 0) >= 0.9 for report in found.report.values())
    for relation in range(2):
        stored = np.roll(vectors, relation, axis=1).astype(np.float32)
        # Each item finds itself, old and new: no code belongs to a wrong row.
        for row in [*range(0, COUNT - len(gone), 97), *range(len(vectors) - 50, len(vectors))]:
            best = found.search(relation, View.AVERAGE, stored[row], 1)
            assert best.scores[0] == pytest.approx(1, abs=2e-3)
            np.testing.assert_array_equal(stored[best.rows[0]], stored[row])


@pytest.mark.parametrize("kind", ["hnsw", "ivf-pq"])
def test_graphs_and_packed_codes_are_built_anew(kind: IndexKind, tmp_path: Path, built: list[Path]) -> None:
    write(tmp_path / "old", drawn(1, COUNT), kind)
    built.clear()
    renumbered, vectors = changed(np.arange(3))
    write(tmp_path / "new", vectors, kind, Carried(tmp_path / "old", {0: 0, 1: 1}, renumbered))
    assert [path.name for path in built] == [f"00{relation}.average.{kind}.faiss" for relation in range(2)]


def test_index_is_built_anew_if_the_number_of_cells_no_longer_fits(tmp_path: Path, built: list[Path]) -> None:
    write(tmp_path / "old", drawn(1, COUNT), "ivf-rabitq")
    built.clear()
    vectors = np.concatenate([drawn(1, COUNT), drawn(2, 4 * COUNT)])
    write(tmp_path / "new", vectors, "ivf-rabitq", Carried(tmp_path / "old", {0: 0, 1: 1}, np.arange(COUNT)))
    assert len(built) == 2


def test_another_kind_and_a_new_relation_are_built_anew(tmp_path: Path, built: list[Path]) -> None:
    write(tmp_path / "old", drawn(1, COUNT), "ivf-rabitq")
    built.clear()
    renumbered, vectors = changed(np.arange(3))
    write(tmp_path / "graph", vectors, "hnsw", Carried(tmp_path / "old", {0: 0, 1: 1}, renumbered))
    assert len(built) == 2
    built.clear()
    write(tmp_path / "new", vectors, "ivf-rabitq", Carried(tmp_path / "old", {1: 1}, renumbered))
    assert [path.name for path in built] == ["000.average.ivf-rabitq.faiss"]


def test_index_that_misses_the_recall_is_built_anew(
    tmp_path: Path, built: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells that were made for other vectors are replaced, and a build that fails all the same is refused."""
    write(tmp_path / "old", drawn(1, COUNT), "ivf-rabitq")
    built.clear()
    monkeypatch.setattr(
        IvfRabitqIndex, "search_parameters", property(lambda self: [1] if not built else [16])
    )
    renumbered, vectors = changed(np.arange(3))
    carried = Carried(tmp_path / "old", {0: 0, 1: 1}, renumbered)
    found = write(tmp_path / "new", vectors, "ivf-rabitq", carried)
    assert [path.name for path in built] == ["000.average.ivf-rabitq.faiss"]
    assert [report.effort for report in found.report.values()] == [16, 16]
    monkeypatch.setattr(IvfRabitqIndex, "search_parameters", [1])
    with pytest.raises(InputError, match="reaches a recall of at most"):
        write(tmp_path / "refused", vectors, "ivf-rabitq", carried)
    assert len(built) == 2
