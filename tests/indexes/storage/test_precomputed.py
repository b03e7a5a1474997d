"""Precomputed answers agree with brute force in NumPy, right after the build and after many changes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float32, Int64
from numpy import ndarray

from indexes.builder.build import build
from indexes.config import BuildConfig
from indexes.index import Index
from indexes.journal.change import Change
from indexes.search.filtered_search import best_for_item
from indexes.search.selection import Selection
from indexes.storage.precomputed import PrecomputedAnswers, PreviousAnswers, write_precomputed
from indexes.storage.table_maker import ANSWERS_PER_ITEM, TableMaker
from indexes.vectors.contract import cosines
from indexes.vectors.faiss_backend import FaissVectors, write_vectors
from indexes.vectors.gpu_vectors import CPU, Cards
from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared_data import Prepared
from model.similarity import Similarity, View
from tests.indexes.changes import Expected, copied, made
from tests.indexes.fakes import FakeEncoder, FakeShop, ids
from tests.indexes.vectors.stand_in_card import StandInCard

DIM = 12


def drawn(count: int) -> Float32[ndarray, "items relations views dim"]:
    """Return vectors, many of them equal, so that ties straddle every cutoff."""
    rng = np.random.default_rng(3)
    kinds = rng.standard_normal((max(count // 7, 1), 2, len(View), DIM))
    vectors = kinds[rng.integers(0, len(kinds), count)]
    vectors[::3] = rng.standard_normal(vectors[::3].shape)
    halves = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float16)
    return np.asarray(halves, np.float32)


def brute(queries: ndarray, targets: ndarray, row: int, but: Sequence[int] = ()) -> list[tuple[int, float]]:
    """Return all other items, best first, with equal scores in catalogue order."""
    scores = cosines(targets, queries[row]).tolist()
    left = [other for other in range(len(targets)) if other != row and other not in but]
    return [(other, scores[other]) for other in sorted(left, key=lambda one: (-scores[one], one))]


def written(
    folder: Path, vectors: ndarray, before: PreviousAnswers | None = None, cards: Cards = CPU
) -> PrecomputedAnswers:
    """Write and open the tables for items with the given vectors."""
    folder.mkdir(exist_ok=True)
    write_vectors(
        folder / "vectors", 2, DIM, lambda relation, view: [vectors[:, relation, [*View].index(view)]]
    )
    write_precomputed(
        folder / "answers", FaissVectors(folder / "vectors", cards), range(2), tuple(Similarity), before
    )
    return PrecomputedAnswers(folder / "answers", (path.name for path in (folder / "answers").glob("*.npy")))


@pytest.fixture(scope="module", params=[1, 2, 60, 700])
def tables(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ndarray, PrecomputedAnswers]:
    vectors = drawn(request.param)
    with pytest.MonkeyPatch.context() as patch:
        # Several tiles, the last of them partial.
        patch.setattr("indexes.storage.table_maker.ITEMS_PER_TILE", 150)
        return vectors, written(tmp_path_factory.mktemp("tables"), vectors)


@pytest.mark.parametrize("similarity", Similarity)
def test_answers_match_brute_force(
    tables: tuple[ndarray, PrecomputedAnswers], similarity: Similarity
) -> None:
    vectors, answers = tables
    query_view, target_view = ([*View].index(view) for view in similarity.views)
    for relation in range(2):
        queries, targets = vectors[:, relation, query_view], vectors[:, relation, target_view]
        for row in range(len(vectors)):
            expected = brute(queries, targets, row)
            for k in (1, 10, ANSWERS_PER_ITEM):
                found = answers.best(relation, similarity, row, k)
                assert found is not None
                assert list(zip(found.rows.tolist(), found.scores.tolist(), strict=True)) == expected[:k]


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 10), (3, 59), (59, 60), (95, 100), (99, 101)])
def test_entries_are_part_of_the_answers(
    tables: tuple[ndarray, PrecomputedAnswers], start: int, stop: int
) -> None:
    vectors, answers = tables
    for row in range(0, len(vectors), 7):
        expected = brute(vectors[:, 1, 2], vectors[:, 1, 2], row)[:ANSWERS_PER_ITEM]
        whole = expected[start:stop] if stop <= len(expected) else None
        assert answers.entries(1, Similarity.AVG, row, start, stop) == whole


@pytest.mark.parametrize("count", [1, 2, 60, 700])
def test_tables_made_on_a_gpu_are_the_same(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.vectors.gpu_vectors.MIN_CARD_ITEMS", 0)
    monkeypatch.setattr("indexes.vectors.gpu_vectors.MIN_LANE_ITEMS", 100)
    card, vectors = StandInCard(), drawn(count)
    cards = Cards([card], 1.0)
    on_cpu, on_gpu = written(tmp_path / "cpu", vectors), written(tmp_path / "gpu", vectors, cards=cards)
    assert sum(card.asked) >= (count if count > 1 else 0)
    gone = np.arange(count) % 5 == 1  # the next generation: some items are replaced
    renumbered = np.where(gone, -1, np.cumsum(~gone) - 1)
    revised = np.concatenate([vectors[~gone], drawn(701)[-30:]])
    written(tmp_path / "cpu-2", revised, PreviousAnswers(on_cpu, renumbered))
    written(tmp_path / "gpu-2", revised, PreviousAnswers(on_gpu, renumbered), cards)
    for turn in ("", "-2"):
        made, expected = ([*(tmp_path / f"{on}{turn}" / "answers").iterdir()] for on in ("gpu", "cpu"))
        assert len(made) == len(expected) == 2 * len(Similarity)
        for path in expected:
            assert (tmp_path / f"gpu{turn}" / "answers" / path.name).read_bytes() == path.read_bytes()


def test_replaces_excluded_rows_or_returns_none(
    tables: tuple[ndarray, PrecomputedAnswers],
) -> None:
    vectors, answers = tables
    without = frozenset(range(0, len(vectors), 2))
    expected = brute(vectors[:, 0, 2], vectors[:, 0, 2], 0, tuple(without))
    kept = expected if len(vectors) <= ANSWERS_PER_ITEM + 1 else expected[:20]
    found = answers.best(0, Similarity.AVG, 0, len(kept), without)
    assert found is not None
    assert list(zip(found.rows.tolist(), found.scores.tolist(), strict=True)) == kept
    deeper = answers.best(0, Similarity.AVG, 0, ANSWERS_PER_ITEM, without)
    if len(vectors) <= ANSWERS_PER_ITEM + 1:
        assert deeper is not None
        assert len(deeper.rows) == len(expected)
    else:
        assert deeper is None


def test_similarity_without_table_is_searched_live(shop: FakeShop, index: Index) -> None:
    assert index.snapshot.generation.answers.similarities == (Similarity.AVG,)
    assert index.snapshot.precomputed(1, Similarity.TT, 0, 3) is None
    hits = index.reader().neighbours("cot", "gardeners", Similarity.TT, 3)
    ranking = shop.ranking("cot", "gardeners", Similarity.TT)[:3]
    assert [hit.item.item_id for hit in hits] == [item_id for item_id, _ in ranking]
    assert [hit.score for hit in hits] == pytest.approx([score for _, score in ranking], abs=1e-5)


@pytest.mark.parametrize("answers", ["none", "all", "TI"])
def test_builds_requested_tables(shop: FakeShop, tmp_path: Path, answers: str) -> None:
    config = BuildConfig.model_validate(
        {
            "checkpoint": shop.checkpoint,
            "prepared": shop.prepared,
            "out": tmp_path / "index",
            "answers": answers,
        }
    )
    build(config, FakeEncoder(), Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared))
    index = Index.open(tmp_path / "index")
    made_of = {"none": (), "all": tuple(Similarity), "TI": (Similarity.TI,)}
    assert index.snapshot.generation.answers.similarities == made_of[answers]
    Expected(shop).check(index)
    index.close()


@pytest.mark.parametrize("count", [5, 90, 400])
def test_carried_over_rows_are_prefixes_of_brute_force_answers(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.storage.table_maker.ITEMS_PER_TILE", 100)
    monkeypatch.setattr("indexes.storage.table_maker.ANSWERS_PER_ITEM", 20)
    made: list[int] = []
    remade, shortened = 0, 0

    def table_noted(self: TableMaker, rows: Int64[ndarray, " rows"]) -> ndarray:
        made.append(len(rows))
        return _table(self, rows)

    monkeypatch.setattr("indexes.storage.table_maker.TableMaker.table", table_noted)
    rng = np.random.default_rng(count)
    pool = drawn(700)
    vectors, before = pool[rng.integers(0, len(pool), count)], None
    for turn in range(8):
        answers = written(tmp_path / f"{turn}", vectors, before)
        depth = min(20, len(vectors) - 1)
        for relation, similarity in [(0, Similarity.AVG), (1, Similarity.TI), (1, Similarity.II)]:
            query_view, target_view = ([*View].index(view) for view in similarity.views)
            table = answers.table(relation, similarity)
            assert table is not None
            assert table.shape == (len(vectors), depth)
            for row in range(len(vectors)):
                there = int((table[row]["row"] >= 0).sum())
                assert there >= depth / 2
                expected = brute(vectors[:, relation, query_view], vectors[:, relation, target_view], row)
                assert table[row][:there].tolist() == expected[:there]
                assert (table[row][there:]["row"] == -1).all()
                shortened += there < depth
        remain = rng.random(len(vectors)) > [0.05, 0.3, 0.6][turn % 3]
        before = PreviousAnswers(answers, np.where(remain, np.cumsum(remain) - 1, -1))
        new = pool[
            rng.integers(0, len(pool), round((len(vectors) - remain.sum()) * rng.uniform(0.5, 1.4)) + 1)
        ]
        remade += turn > 0 and sum(made) < 2 * len(Similarity) * len(vectors)
        made.clear()
        vectors = np.concatenate([vectors[remain], new])
    assert remade == 7  # most rows were carried over
    assert bool(shortened) == (count > 20)


_table = TableMaker.table


@pytest.mark.parametrize("depth", [ANSWERS_PER_ITEM, 8])
def test_answers_match_brute_force_after_a_thousand_changes(
    shop: FakeShop, tmp_path: Path, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.storage.table_maker.ANSWERS_PER_ITEM", depth)
    index, expected = Index.open(copied(shop, tmp_path)), Expected(shop)
    rng = np.random.default_rng(5)
    for batch in range(50):
        changes = []
        for _ in range(20):
            item_id = str(rng.choice([*ids(), *(f"new-{n}" for n in range(40))]))
            seed = int(rng.integers(0, 30))
            changes.append(Change(item_id) if rng.random() < 0.3 else made(item_id, seed))
        index.apply(changes)
        expected.apply(*changes)
        if batch % 10 == 9:
            index.compact()
        if batch % 10 in (4, 9):
            expected.check(index)
            if batch % 10 == 9:
                check_tables(index, expected, depth)
            for item_id in list(expected.items)[:8]:
                for relation in index.relations:
                    hits = index.reader().neighbours(item_id, relation.relation_id, Similarity.AVG, 20)
                    ranking = expected.ranking(item_id, relation.relation_id, Similarity.AVG)[:20]
                    assert [(hit.item.item_id, hit.score) for hit in hits] == ranking
    index.close()


def check_tables(index: Index, expected: Expected, depth: int) -> None:
    """Check that every table row is a prefix of the ranking and has at least half of its maximum length."""
    names = list(expected.items)
    for position, relation in enumerate(index.relations):
        table = index.snapshot.generation.answers.table(position, Similarity.AVG)
        assert table is not None
        for item_id, entries in zip(names, table, strict=True):
            found = [(names[row], score) for row, score in entries.tolist() if row >= 0]
            ranking = expected.ranking(item_id, relation.relation_id, Similarity.AVG)
            assert len(found) >= min(depth, len(names) - 1) / 2
            assert found == ranking[: len(found)]


def test_skips_excluded_items_in_table(shop: FakeShop, index: Index) -> None:
    selection = Selection(exclude=frozenset({"twin-1", "twin-3", "tie"}))
    row = index.snapshot.row("trowel")
    found = best_for_item(index.snapshot, selection, 1, Similarity.AVG, row, 4)
    table = index.snapshot.precomputed(1, Similarity.AVG, row, 11)
    assert table is not None
    gone = {index.snapshot.row(item_id) for item_id in selection.exclude}
    assert found.rows.tolist() == [one for one in table.rows.tolist() if one not in gone][:4]
