"""Answers kept in tables against brute force in NumPy, as they were made and after many changes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float32
from numpy import ndarray

from indexes.answers import DEPTH, Answers, write_answers
from indexes.builder import build
from indexes.config import BuildConfig
from indexes.faiss_vectors import FaissVectors, write_vectors
from indexes.index import Index
from indexes.journal import Change
from indexes.selection import Selection
from indexes.vectors import cosines
from model.checkpoint import Checkpoint
from model.prepared import Prepared
from model.records import Similarity, View

from .fakes import FakeEncoder, FakeShop, ids
from .live import Expected, copied, made

DIM = 12


def drawn(count: int) -> Float32[ndarray, "items relations views dim"]:
    """Vectors of which many are equal, so that ties straddle every cut."""
    rng = np.random.default_rng(3)
    kinds = rng.standard_normal((max(count // 7, 1), 2, len(View), DIM))
    vectors = kinds[rng.integers(0, len(kinds), count)]
    vectors[::3] = rng.standard_normal(vectors[::3].shape)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float16).astype(np.float32)


def brute(queries: ndarray, targets: ndarray, row: int, but: Sequence[int] = ()) -> list[tuple[int, float]]:
    """All others, best first, equal scores in catalogue order."""
    scores = cosines(targets, queries[row]).tolist()
    left = [other for other in range(len(targets)) if other != row and other not in but]
    return [(other, scores[other]) for other in sorted(left, key=lambda one: (-scores[one], one))]


@pytest.fixture(scope="module", params=[1, 2, 60, 700])
def tables(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ndarray, Answers]:
    vectors = drawn(request.param)
    folder = tmp_path_factory.mktemp("tables")
    write_vectors(
        folder / "vectors", 2, DIM, lambda relation, view: [vectors[:, relation, [*View].index(view)]]
    )
    write_answers(folder / "answers", FaissVectors(folder / "vectors"), 2, tuple(Similarity))
    return vectors, Answers(folder / "answers")


@pytest.mark.parametrize("similarity", Similarity)
def test_every_answer_is_that_of_brute_force(tables: tuple[ndarray, Answers], similarity: Similarity) -> None:
    vectors, answers = tables
    query_view, target_view = ([*View].index(view) for view in similarity.views)
    for relation in range(2):
        queries, targets = vectors[:, relation, query_view], vectors[:, relation, target_view]
        for row in range(len(vectors)):
            expected = brute(queries, targets, row)
            for k in (1, 10, DEPTH):
                found = answers.best(relation, similarity, row, k)
                assert found is not None
                assert list(zip(found.rows.tolist(), found.scores.tolist(), strict=True)) == expected[:k]


def test_what_is_left_out_is_made_up_for_or_the_table_says_nothing(tables: tuple[ndarray, Answers]) -> None:
    vectors, answers = tables
    without = frozenset(range(0, len(vectors), 2))
    expected = brute(vectors[:, 0, 2], vectors[:, 0, 2], 0, tuple(without))
    kept = expected if len(vectors) <= DEPTH + 1 else expected[:20]
    found = answers.best(0, Similarity.AVG, 0, len(kept), without)
    assert found is not None
    assert list(zip(found.rows.tolist(), found.scores.tolist(), strict=True)) == kept
    deeper = answers.best(0, Similarity.AVG, 0, DEPTH, without)
    if len(vectors) <= DEPTH + 1:
        assert deeper is not None
        assert len(deeper.rows) == len(expected)
    else:
        assert deeper is None


def test_a_similarity_without_a_table_is_answered_live(shop: FakeShop, index: Index) -> None:
    assert index.snapshot.generation.answers.similarities == (Similarity.AVG,)
    assert index.snapshot.answer(1, Similarity.TT, 0, 3) is None
    hits = index.neighbours("cot", "gardeners", Similarity.TT, 3)
    ranking = shop.ranking("cot", "gardeners", Similarity.TT)[:3]
    assert [(hit.item.item_id, pytest.approx(hit.score, abs=1e-5)) for hit in hits] == ranking


@pytest.mark.parametrize("answers", ["none", "all", "TI"])
def test_the_tables_asked_for_are_made(shop: FakeShop, tmp_path: Path, answers: str) -> None:
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


def test_a_thousand_changes_later_every_answer_is_that_of_brute_force(shop: FakeShop, tmp_path: Path) -> None:
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
            for item_id in list(expected.items)[:8]:
                for relation in index.relations:
                    hits = index.neighbours(item_id, relation.relation_id, Similarity.AVG, 20)
                    ranking = expected.ranking(item_id, relation.relation_id, Similarity.AVG)[:20]
                    assert [(hit.item.item_id, hit.score) for hit in hits] == ranking
    index.close()


def test_items_excluded_are_skipped_in_the_table(shop: FakeShop, index: Index) -> None:
    selection = Selection(exclude=frozenset({"twin-1", "twin-3", "tie"}))
    row = index.snapshot.row("trowel")
    found = selection.answer(index.snapshot, 1, Similarity.AVG, row, 4)
    table = index.snapshot.answer(1, Similarity.AVG, row, 11)
    assert table is not None
    gone = {index.snapshot.row(item_id) for item_id in selection.exclude}
    assert found.rows.tolist() == [one for one in table.rows.tolist() if one not in gone][:4]
