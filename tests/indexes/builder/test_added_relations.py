"""Relations added at run time.

An added relation behaves like any other relation, even during changes, compactions and restarts. It is added
completely or not at all, even if the process is killed.
"""

import itertools
import json
import random
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file, save_file

from indexes.admin.backup import restore, snapshot
from indexes.admin.inspection import compact, stats, verify
from indexes.builder.build import build
from indexes.config import (
    BuildConfig,
    CompactConfig,
    RestoreConfig,
    SnapshotConfig,
    StatsConfig,
    VerifyConfig,
)
from indexes.index import Index
from indexes.journal.change import Change
from indexes.search.retrieve import KnownItems, NewItem, Question, Weighted
from indexes.storage.layout import generations, lock_index, newest_generation
from indexes.storage.relation_table import ADDED_RELATIONS_FILE
from indexes.vectors import faiss_backend as faiss_vectors
from model.artifact import read_manifest
from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.validity import PairVectors
from model.data.prepared_data import Prepared
from model.errors import ArtifactError, InputError, NoTokensError, UnknownRelationError
from model.plain_file import FileRecord, file_digest
from model.records import Relation
from model.similarity import Similarity, View
from tests.indexes.changes import GIFTS, SAILORS, WORDED, Expected, add, copied, made, placed
from tests.indexes.durability.test_crashes import STREAM, Killer, Work, tell
from tests.indexes.fakes import RELATIONS, FakeEncoder, FakeShop, validity_head, write_shop
from tests.indexes.search.test_free_text_search import TokenEncoder, answers, brute, changed, item, make


@pytest.fixture(scope="session")
def worded_shop(tmp_path_factory: pytest.TempPathFactory) -> FakeShop:
    """Return the shop with an index that stores tokens."""
    return write_shop(tmp_path_factory.mktemp("worded-shop"), token_store=True)


@pytest.fixture
def folder(worded_shop: FakeShop, tmp_path: Path) -> Path:
    return copied(worded_shop, tmp_path)


@pytest.fixture
def index(folder: Path) -> Iterator[Index]:
    index = Index.open(folder)
    yield index
    index.close()


def test_vectors_are_computed_from_tokens(index: Index) -> None:
    tokens = index.snapshot.generation.tokens
    assert tokens is not None
    add(index)
    for view in View:
        expected = WORDED["sailors"].view(tokens.tokens, view, np.arange(12)).astype(np.float16)
        np.testing.assert_array_equal(index.snapshot.vectors(4, view, range(12)), expected)


def test_search_and_precomputed_answers_match_brute_force(index: Index, worded_shop: FakeShop) -> None:
    add(index)
    expected = Expected(worded_shop)
    expected.check(index)
    for item_id in expected.items:
        for similarity in Similarity:
            hits = index.reader().neighbours(item_id, "sailors", similarity, 5)
            assert answers(hits) == expected.ranking(item_id, "sailors", similarity)[:5]
    assert index.snapshot.precomputed(4, Similarity.AVG, 0, 5) is not None


def test_reader_lists_added_relation_and_returns_its_free_text_form(index: Index) -> None:
    add(index)
    assert index.relations == (*RELATIONS, SAILORS)
    assert (index.reader().position("sailors"), index.reader().relation("sailors")) == (4, SAILORS)
    assert index.snapshot.relation("sailors").pairs is None
    worded = index.reader().free_text("sailors")
    assert worded is not None
    assert (worded.description, worded.nearest) == (SAILORS.description, WORDED["sailors"].nearest)
    assert index.reader().free_text("gardeners") is None


def test_scores_and_validates_pair_under_added_relation(index: Index) -> None:
    add(index)
    scores = {
        one.relation.relation_id: one.score
        for one in index.reader().relation_scores("cot", "bib", Similarity.TI)
    }
    text, image = (index.snapshot.vectors(4, view, [7, 11]) for view in (View.TEXT, View.IMAGE))
    assert scores.keys() == {"gardeners", "worn together / office", "new-parents", "sailors"}
    assert scores["sailors"] == pytest.approx(text[0] @ image[1], abs=1e-5)
    pair = PairVectors(text[:1], image[:1], text[1:], image[1:], WORDED["sailors"].vector[None])
    assert index.reader().validity("cot", "bib", "sailors").probability == pytest.approx(
        validity_head().probability(pair)[0]
    )


def test_text_query_finds_item_under_added_relation(index: Index) -> None:
    add(index)
    worded = index.reader().free_text("sailors")
    assert worded is not None
    query = worded.vectors(FakeEncoder().text_tokens(["Wooden cot. Nursery"]))[0]
    assert index.reader().search(query, "sailors", View.TEXT, 1)[0].item.item_id == "cot"


def test_new_item_gets_same_results_as_equal_catalogue_item(index: Index) -> None:
    add(index)
    picture = index.picture("cot")[1]
    assert isinstance(picture, Path)
    encoding = FakeEncoder().read_items(["Wooden cot. Nursery"], [Image.open(picture)], tokens=True)()
    for relations in ((Weighted("sailors"),), (Weighted("sailors"), Weighted("gardeners")), ()):
        questions = [
            Question(query, relations, Similarity.AVG, 4)
            for query in (NewItem(encoding), KnownItems(("cot",)))
        ]
        new, known = (
            [(found.row, found.relation) for found in index.reader().retrieve(one).found] for one in questions
        )
        assert new[0][0] == 7
        assert new[1:] == known[:3]


def test_finds_items_changed_before_during_and_after_addition(
    index: Index, folder: Path, worded_shop: FakeShop
) -> None:
    expected = Expected(worded_shop)
    other = Index.open(folder)  # a second replica

    def change(at: Index, *changes: Change) -> None:
        at.apply(changes)
        expected.apply(*changes)

    change(index, made("before", 1), Change("tie"))
    told = []

    def progress(done: int, total: int) -> None:
        change(other if done % 24 else index, made(f"during-{done}", done), Change("trowel"))
        told.append((done, total))

    index.add_relation(SAILORS, WORDED["sailors"], progress)
    # The steps are the vectors of three views and one table of precomputed answers.
    assert told == [(12, 48), (24, 48), (36, 48), (48, 48)]
    change(other, made("from a replica without the relation", 5))
    change(index, made("after", 2), made("before", 3))
    other.refresh()
    again = Index.open(folder)
    for one in (index, other, again):
        assert one.reader().relation("sailors") == SAILORS
        expected.check(one)
    index.compact()
    other.refresh()
    for one in (index, other):
        expected.check(one)
    again.close()
    other.close()


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 15)),
            st.tuples(st.just("drop"), st.integers(0, 15)),
            st.tuples(st.sampled_from(["add", "remove"]), st.sampled_from([0, 1])),
            st.tuples(st.sampled_from(["compact", "refresh", "reopen"]), st.just(0)),
        ),
        max_size=15,
    )
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_operations_gives_expected_index(
    steps: list[tuple[str, int]], worded_shop: FakeShop, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = copied(worded_shop, tmp_path_factory.mktemp("added"))
    expected, there = Expected(worded_shop), [*RELATIONS]
    index, follower = Index.open(folder), Index.open(folder)
    for step, number in [*steps, ("refresh", 0)]:
        relation = (SAILORS, GIFTS)[number % 2]
        change = made(f"new-{number}", number) if step == "put" else Change(f"new-{number}")
        match step:
            case "put" | "drop":
                follower.apply([change])
                expected.apply(change)
            case "add" if relation not in there:
                add(index, relation)
                there.append(relation)
            case "remove" if relation in there:
                index.remove_relation(relation.relation_id)
                there.remove(relation)
            case "compact":
                follower.compact()
            case "reopen":
                index.close()
                index = Index.open(folder)
            case _:
                index.refresh()
                follower.refresh()
    for one in (index, follower):
        assert one.relations == tuple(there)
        expected.check(one)
        one.close()
    assert "is intact" in verify(VerifyConfig(index=folder))


def test_removes_only_given_relation(index: Index, folder: Path, worded_shop: FakeShop) -> None:
    add(index)
    add(index, GIFTS)
    index.remove_relation("sailors")
    assert index.relations == (*RELATIONS, GIFTS)
    Expected(worded_shop).check(index)
    with pytest.raises(UnknownRelationError, match="sailors"):
        index.reader().neighbours("cot", "sailors", Similarity.AVG, 3)
    index.remove_relation("gifts / new")
    assert not (newest_generation(folder) / ADDED_RELATIONS_FILE).exists()
    assert [*index.relations] == [*RELATIONS]


def test_rejects_removal_of_trained_or_unknown_relation(index: Index) -> None:
    with pytest.raises(
        InputError, match="Relation 'gardeners' cannot be removed, because the checkpoint was trained on it"
    ):
        index.remove_relation("gardeners")
    with pytest.raises(UnknownRelationError, match="sailors"):
        index.remove_relation("sailors")


@pytest.mark.parametrize(
    ("relation", "message"),
    [
        (Relation("gardeners", "Of sailors."), "Relation 'gardeners' already exists"),
        (
            Relation("offices", "Worn together at the office."),
            "Relation 'worn together / office' already has the descr",
        ),
        (Relation(" ", "Of sailors."), "' ' cannot be the ID of a relation"),
        (Relation("a\nb", "Of sailors."), r"'a\\nb' cannot be the ID of a relation"),
        (Relation("sailors", "\ud800"), "cannot be the description of a relation"),
    ],
)
def test_rejects_invalid_relation(relation: Relation, message: str, index: Index) -> None:
    with pytest.raises(InputError, match=message):
        index.check_new_relation(relation)


def test_rejects_relation_that_was_already_added(index: Index) -> None:
    add(index)
    with pytest.raises(InputError, match=r"Relation 'sailors' already exists\. Choose another ID"):
        add(index)


def test_rejects_addition_to_index_without_tokens(shop: FakeShop, tmp_path: Path) -> None:
    index = Index.open(copied(shop, tmp_path))
    with pytest.raises(NoTokensError, match="--token-store"):
        add(index)
    index.close()


def test_rejects_addition_while_another_process_writes_generation(index: Index, folder: Path) -> None:
    with lock_index(folder), pytest.raises(ArtifactError, match="Another run of rcml is writing index now"):
        add(index)
    assert index.relations == RELATIONS


def test_build_does_not_silently_discard_added_relation(
    index: Index, folder: Path, worded_shop: FakeShop
) -> None:
    add(index)
    config = BuildConfig(checkpoint=worded_shop.checkpoint, prepared=worded_shop.prepared, out=folder)
    with pytest.raises(InputError, match="or relations that were added at run time"):
        build(config, FakeEncoder(), Checkpoint.open(config.checkpoint), Prepared.open(config.prepared))


def test_builds_graphs_only_for_new_relation_and_copies_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faiss_vectors, "MAX_SCANNED_ITEMS", 100)
    index = make(tmp_path, [item(number) for number in range(220)], kind="hnsw", answers="none")
    index.apply([changed(500, 7), Change("i3")])
    before = index.snapshot.generation
    worded = TokenEncoder().read_relation("w3 w7 worn by sailors")
    index.add_relation(Relation("sailors", worded.description), worded)
    after = index.snapshot.generation
    made_anew = after.manifest.files.keys() - before.manifest.files.keys()
    assert sorted(name for name in made_anew if "hnsw" in name) == [
        f"vectors/004.{view}.hnsw.faiss" for view in ("average", "image", "text")
    ]
    kept = {name for name in before.manifest.files if name.startswith("vectors/0")}
    assert all(after.manifest.files[name] == before.manifest.files[name] for name in kept)
    found = 0
    for number in (7, 20, 40):
        best = [item_id for item_id, _ in brute(index, worded, f"i{number}", Similarity.AVG)[:10]]
        hits = index.reader().neighbours(f"i{number}", "sailors", Similarity.AVG, 10)
        found += len({hit.item.item_id for hit in hits} & {*best})
    assert found >= 27
    index.close()


def test_adds_relation_to_milvus(worded_shop: FakeShop, tmp_path: Path, milvus_lite: str) -> None:
    index = Index.open(placed(worded_shop, tmp_path, vectors=milvus_lite))
    index.apply([made("before", 1)])
    expected = Expected(worded_shop)
    expected.apply(made("before", 1))
    add(index)
    expected.check(index)
    index.close()


def test_all_index_commands_support_added_relation(
    index: Index, folder: Path, worded_shop: FakeShop, tmp_path: Path
) -> None:
    expected = Expected(worded_shop)
    add(index)
    index.apply([made("new", 1)])
    expected.apply(made("new", 1))
    assert "is intact" in verify(VerifyConfig(index=folder))
    said = [line.split() for line in stats(StatsConfig(index=folder)).splitlines()]
    assert ["relations", "5"] in said
    assert ["relations", "added", "sailors"] in said
    snapshot(SnapshotConfig(index=folder, out=tmp_path / "copy"))
    assert "13 items" in compact(CompactConfig(index=folder))
    index.remove_relation("sailors")
    restore(RestoreConfig(snapshot=tmp_path / "copy", out=folder))
    index.refresh()
    assert index.relations == (*RELATIONS, SAILORS)
    expected.check(index)
    assert "is intact" in verify(VerifyConfig(index=folder))


def test_verify_finds_vectors_that_do_not_match_tokens(index: Index, folder: Path) -> None:
    add(index)
    path = newest_generation(folder)
    manifest = read_manifest(path, "index")
    arrays = load_file(path / ADDED_RELATIONS_FILE)
    save_file({**arrays, "query": 1.1 - arrays["query"]}, path / ADDED_RELATIONS_FILE)
    changed_file = FileRecord(
        size=(path / ADDED_RELATIONS_FILE).stat().st_size, sha256=file_digest(path / ADDED_RELATIONS_FILE)
    )
    manifest = manifest.model_copy(update={"files": {**manifest.files, ADDED_RELATIONS_FILE: changed_file}})
    (path / "manifest.json").write_text(manifest.text)
    with pytest.raises(
        ArtifactError, match=r"under 'Striped, and worn by sailors\.' does not match its tokens"
    ):
        verify(VerifyConfig(index=folder))


def test_stores_added_relation_in_documented_files(index: Index, folder: Path) -> None:
    add(index)
    path = newest_generation(folder)
    assert json.loads((path / "relations.json").read_text())[-1] == {
        "relation_id": "sailors", "description": SAILORS.description, "intra": False, "domain": "",
        "name": "", "pairs": None, "paired_items": None, "users": None, "sample_pairs": [],
    }  # fmt: skip
    shapes = {name: array.shape for name, array in load_file(path / ADDED_RELATIONS_FILE).items()}
    assert shapes == {"query": (1, 16), "output": (1, 16, 16), "vector": (1, 16), "nearest": (1, 3)}
    counts = read_manifest(path, "index").counts
    assert (counts["relations"], counts["added"]) == (5, 1)


def play(index: Index, step: int) -> None:
    """Run one step of a cycle: apply a change, add the relation, apply a change, remove the relation."""
    match step % 4:
        case 1:
            add(index)
        case 3:
            index.remove_relation("sailors")
        case _:
            index.apply(STREAM[step % len(STREAM)])


def plays(writer: Connection, folder: Path, start: int) -> None:
    """Run the steps from `start` on until killed, and report each step before it begins."""
    tell(writer, Work.OPENING, start)
    index = Index.open(folder)
    for step in itertools.count(start):
        tell(writer, (Work.APPLYING, Work.ADDING, Work.APPLYING, Work.REMOVING)[step % 4], step)
        play(index, step)


def holds(expected: Expected, folder: Path, step: int) -> bool:
    """Return whether the index has the expected state before `step`, with the relation either complete or absent."""
    index = Index.open(folder)
    try:
        there = (*RELATIONS, SAILORS) if step % 4 in (2, 3) else RELATIONS
        if index.relations != there:
            return False
        expected.check(index)
    except AssertionError:
        return False
    finally:
        index.close()
    return True


def run_kills(shop: FakeShop, folder: Path, kills: int) -> int:
    """Kill a process that runs the steps, at least `kills` times and until both an addition and a removal were hit.

    Return the number of completed steps.
    """
    rng, killer = random.Random(kills), Killer(kills)
    kinds = (Work.ADDING, Work.REMOVING)
    copy, expected, step = copied(shop, folder), Expected(shop), 0

    def follow(upto: int) -> None:
        nonlocal step
        for done in range(step, upto):
            if done % 2 == 0:
                expected.apply(*STREAM[done % len(STREAM)])
        step = max(step, upto)

    for kill in itertools.count():
        if kill >= kills and set(kinds) <= set(killer.amid):
            break
        follow(killer.kill(kinds[kill % len(kinds)], rng.randint(1, 2), plays, copy, step))
        if not holds(expected, copy, step):
            follow(step + 1)  # the step was durable, but not yet acknowledged
            assert holds(expected, copy, step)
    assert "is intact" in verify(VerifyConfig(index=copy))
    assert len(generations(copy)) <= 3  # the next generation removes the remains of the last kill
    return step


def test_5_kills_leave_relation_complete_or_absent_and_lose_no_change(
    worded_shop: FakeShop, tmp_path: Path
) -> None:
    assert run_kills(worded_shop, tmp_path, kills=5) > 5


@pytest.mark.soak
def test_100_kills_leave_relation_complete_or_absent_and_lose_no_change(
    worded_shop: FakeShop, tmp_path: Path
) -> None:
    assert run_kills(worded_shop, tmp_path, kills=100) > 100
