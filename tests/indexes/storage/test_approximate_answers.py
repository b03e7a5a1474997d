"""Tables of precomputed answers that an ANN index found: exact scores, and a recall that is measured and reported."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexes.admin.inspection import stats
from indexes.config import IndexKind, StatsConfig
from indexes.index import Index
from indexes.storage.precomputed import PrecomputedAnswers, PreviousAnswers, write_precomputed
from indexes.storage.table_maker import ANSWERS_PER_ITEM
from indexes.vectors import vector_file
from indexes.vectors.ann_index import HnswIndex
from indexes.vectors.contract import cosines
from indexes.vectors.faiss_backend import FaissVectors, write_vectors
from indexes.vectors.gpu_vectors import CPU, Cards
from indexes.vectors.vector_file import VectorFile
from model.artifact import open_artifact
from model.errors import ArtifactError
from model.similarity import Similarity, View
from tests.indexes.changes import add
from tests.indexes.fakes import write_shop
from tests.indexes.vectors.stand_in_card import StandInCard

COUNT, DIM = 1_500, 24


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat small indexes like those with more than 100,000 items."""
    monkeypatch.setattr("indexes.storage.table_maker.MAX_EXACT_ITEMS", 10)
    monkeypatch.setattr("indexes.vectors.faiss_backend.MAX_SCANNED_ITEMS", 10)
    monkeypatch.setattr("indexes.vectors.faiss_backend.RECALL_QUERIES", 10)


def drawn(count: int) -> np.ndarray:
    """Return unit vectors of two views, rounded to half precision; `[views, items, dim]`."""
    vectors = np.random.default_rng(0).standard_normal((2, count, DIM))
    halves = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float16)
    return np.asarray(halves, np.float32)


def written(
    folder: Path,
    vectors: np.ndarray,
    kind: IndexKind,
    before: PreviousAnswers | None = None,
    cards: Cards = CPU,
) -> PrecomputedAnswers:
    """Write tables for the text and average views, with the fewest cells or shortest search."""
    views = {View.TEXT: vectors[0], View.AVERAGE: vectors[1]}
    folder.mkdir()
    write_vectors(folder / "vectors", 1, DIM, lambda _, view: [views[view]], kind, views=[*views])
    opened_vectors = FaissVectors(folder / "vectors", cards)
    write_precomputed(folder / "answers", opened_vectors, [0], [Similarity.TT, Similarity.AVG], before)
    return opened(folder / "answers")


def opened(folder: Path) -> PrecomputedAnswers:
    return PrecomputedAnswers(folder, [path.name for path in folder.iterdir()])


def exact(vectors: np.ndarray, row: int) -> np.ndarray:
    """Return the exact scores of the best other items, best first."""
    scores: np.ndarray = -np.sort(-np.delete(cosines(vectors, vectors[row]), row))
    return scores[:ANSWERS_PER_ITEM]


@pytest.mark.parametrize("kind", ["hnsw", "ivf-rabitq", "ivf-pq"])
def test_scores_are_exact_and_recall_is_reported(kind: IndexKind, tmp_path: Path) -> None:
    vectors = drawn(COUNT)
    answers = written(tmp_path / "index", vectors, kind)
    assert answers.recalls.keys() == {"000.TT.npy", "000.AVG.npy"}
    for name, own in (("TT", vectors[0]), ("AVG", vectors[1])):
        table = answers.table(0, Similarity(name))
        assert table is not None
        shares: dict[int, list[float]] = {10: [], ANSWERS_PER_ITEM: []}
        for row, entries in enumerate(table):
            there = entries[entries["row"] >= 0]
            assert row not in there["row"]
            np.testing.assert_array_equal(there["score"], cosines(own[there["row"]], own[row]))
            assert (np.diff(there["score"]) <= 0).all()
            best = exact(own, row)
            for k, found in shares.items():
                found.append(float((there["score"][:k] >= best[k - 1]).sum()) / k)
        reported = answers.recalls[f"000.{name}.npy"]
        # A hundred rows are measured; the standard error of their mean is at most 0.03 here.
        assert reported.recall_at_10 == pytest.approx(np.mean(shares[10]), abs=0.09)
        assert reported.recall == pytest.approx(np.mean(shares[ANSWERS_PER_ITEM]), abs=0.09)
        assert np.mean(shares[10]) > 0.5


@pytest.fixture
def misses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let searches with a filter use the graph, which finds no item whose row is divisible by ten."""
    find, open_file = HnswIndex.candidates, vector_file.open_vector_file

    def candidates(index: HnswIndex, *asked: Any) -> tuple[np.ndarray, np.ndarray]:
        rows, scores = find(index, *asked)
        return rows[rows % 10 != 0], scores[rows % 10 != 0]

    def opened_for_filters(*asked: Any, **options: Any) -> VectorFile:
        return replace(open_file(*asked, **options), least_filter_share=0.0, filter_effort=64)

    monkeypatch.setattr(HnswIndex, "candidates", candidates)
    monkeypatch.setattr("indexes.vectors.faiss_backend.open_vector_file", opened_for_filters)
    monkeypatch.setattr("indexes.vectors.filter_plan.VECTORS_PER_CANDIDATE", 0)


@pytest.mark.usefixtures("misses")
def test_recall_is_measured_against_all_vectors_where_filters_use_the_graph(tmp_path: Path) -> None:
    answers = written(tmp_path / "index", drawn(COUNT), "hnsw")
    for recall in answers.recalls.values():
        assert recall.recall_at_10 == pytest.approx(0.9, abs=0.05)
        assert recall.recall == pytest.approx(0.9, abs=0.05)


@pytest.mark.usefixtures("misses")
def test_exact_table_has_nearly_equal_items_that_the_graph_misses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 35 items with equal scores ten are among the hundred best; these are more than are kept as candidates."""
    monkeypatch.setattr("indexes.storage.table_maker.MAX_EXACT_ITEMS", COUNT)
    cosine = np.concatenate([[1.0], np.linspace(0.9, 0.6, 90), np.full(35, 0.5), np.zeros(COUNT - 126)])
    across = drawn(COUNT)
    across[:, 91:126] = across[:, [91]]
    across[:, :, 0] = 0
    across /= np.linalg.norm(across, axis=-1, keepdims=True)
    vectors = across * np.sqrt(1 - cosine**2)[:, None]
    vectors[:, :, 0] = cosine
    vectors = np.asarray(vectors.astype(np.float16), np.float32)
    answers = written(tmp_path / "index", vectors, "hnsw")
    assert answers.recalls == {}
    table = answers.table(0, Similarity.AVG)
    assert table is not None
    assert table[0]["row"].tolist() == [*range(1, ANSWERS_PER_ITEM + 1)]


def test_exact_tables_are_not_made_from_approximate_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some items are deleted, so that the rest are few enough for exact tables."""
    vectors = drawn(COUNT)
    before = written(tmp_path / "old", vectors, "ivf-rabitq")
    monkeypatch.setattr("indexes.storage.table_maker.MAX_EXACT_ITEMS", COUNT - 1)
    renumbered = np.arange(COUNT)
    renumbered[-1] = -1
    left = vectors[:, :-1]
    answers = written(tmp_path / "new", left, "ivf-rabitq", PreviousAnswers(before, renumbered))
    assert answers.recalls == {}
    table = answers.table(0, Similarity.AVG)
    assert table is not None
    for row in range(0, COUNT - 1, 50):
        np.testing.assert_array_equal(table[row]["score"], exact(left[1], row))


def test_tables_of_a_scanned_index_stay_exact(tmp_path: Path) -> None:
    answers = written(tmp_path / "index", drawn(300), "flat")
    assert answers.recalls == {}
    assert not (tmp_path / "index" / "answers" / "report.json").exists()


def test_tables_made_on_a_gpu_stay_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexes.vectors.gpu_vectors.MIN_CARD_ITEMS", 0)
    monkeypatch.setattr("indexes.vectors.gpu_vectors.MIN_LANE_ITEMS", 100)
    vectors = drawn(400)
    answers = written(tmp_path / "index", vectors, "hnsw", cards=Cards([StandInCard()], 1.0))
    assert answers.recalls == {}
    table = answers.table(0, Similarity.AVG)
    assert table is not None
    for row in range(0, 400, 50):
        np.testing.assert_array_equal(table[row]["score"], exact(vectors[1], row))


def test_items_added_later_are_compared_with_all_others(tmp_path: Path) -> None:
    vectors = drawn(COUNT)
    vectors[:, -1] = vectors[:, 7]  # the last item equals another, so it is the best answer for it
    answers = written(tmp_path / "old", vectors[:, :-1], "ivf-rabitq")
    renumbered = np.arange(COUNT - 1)
    renumbered[3] = -1
    renumbered[4:] -= 1
    left = np.delete(vectors, 3, axis=1)
    carried = written(tmp_path / "new", left, "ivf-rabitq", PreviousAnswers(answers, renumbered))
    found = carried.best(0, Similarity.AVG, 6, 1)
    assert found is not None
    assert found.rows.tolist() == [COUNT - 2]
    assert carried.recalls.keys() == {"000.TT.npy", "000.AVG.npy"}
    table = carried.table(0, Similarity.AVG)
    assert table is not None
    last = table[-1][table[-1]["row"] >= 0]  # a new item has answers, too
    np.testing.assert_array_equal(last["score"], cosines(left[1][last["row"]], left[1][-1]))
    assert last["row"][0] == 6


def test_copied_tables_keep_their_recall_under_their_new_position(tmp_path: Path) -> None:
    answers = written(tmp_path / "index", drawn(COUNT), "hnsw")
    answers.copy(tmp_path / "copy", {2: 0})
    assert opened(tmp_path / "copy").recalls == {
        name.replace("000", "002"): recall for name, recall in answers.recalls.items()
    }


def test_damaged_report_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "index", drawn(300), "hnsw")
    (tmp_path / "index" / "answers" / "report.json").write_text('{"000.AVG.npy": {"recall": "high"}}')
    with pytest.raises(ArtifactError, match=r"report\.json"):
        _ = opened(tmp_path / "index" / "answers").recalls


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """Yield an index with graphs and approximate tables, and tokens, so that relations can be added."""
    index = Index.open(write_shop(tmp_path, kind="hnsw", token_store=True).index)
    yield index
    index.close()


def test_stats_say_that_answers_are_approximate(index: Index) -> None:
    expected = "precomputed answers"
    changes: list[Callable[[], object]] = [lambda: None, index.compact, lambda: add(index)]
    for change in changes:
        change()
        lines = stats(StatsConfig(index=index.path)).splitlines()
        (line,) = (line for line in lines if line.startswith(expected))
        assert line.removeprefix(expected).strip() == (
            "AVG; approximate: recall@10 1.0000 to 1.0000, recall@100 1.0000 to 1.0000, measured when they were written"
        )
    generation = index.snapshot.generation
    assert len(generation.answers.recalls) == len(generation.relations)
    assert "answers/report.json" in open_artifact(generation.path, "index").files
