"""Random changes to an index, checked against a dictionary: all items and all results must match after each change."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from indexes.admin.inspection import compact, verify
from indexes.builder.build import build
from indexes.config import BuildConfig, CompactConfig, VerifyConfig
from indexes.index import Index
from indexes.journal.change import Change
from indexes.journal.high_water_mark import MARK_FILE
from indexes.journal.sqlite_store import JOURNAL_FILE
from indexes.storage.layout import generations
from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared_data import Prepared
from model.errors import ArtifactError, InputError, MismatchError, UnknownItemError
from model.similarity import Similarity
from tests.indexes.changes import Expected, copied, made, placed
from tests.indexes.fakes import FakeEncoder, FakeShop, ids, write_checkpoint
from tests.indexes.postgres_server import Server

ANY_ID = st.sampled_from([*ids(), *(f"new-{n}" for n in range(8))])
SEED = st.integers(0, 30)


@pytest.fixture
def folder(shop: FakeShop, tmp_path: Path) -> Path:
    return copied(shop, tmp_path)


@pytest.fixture
def index(folder: Path) -> Iterator[Index]:
    index = Index.open(folder)
    yield index
    index.close()


class Changing(RuleBasedStateMachine):
    """Random changes, compactions and restarts of two `Index` objects that share a folder, as two processes do."""

    shop: FakeShop
    place: Callable[[FakeShop, Path], Path]

    @initialize()
    def begin(self) -> None:
        self.folder = TemporaryDirectory()
        self.path = type(self).place(self.shop, Path(self.folder.name))
        self.indexes = [Index.open(self.path), Index.open(self.path)]
        self.expected = Expected(self.shop)

    @rule(ids=st.lists(ANY_ID, max_size=4), seed=SEED, which=st.integers(0, 1))
    def put_in(self, ids: list[str], seed: int, which: int) -> None:
        changes = [made(item_id, seed + n) for n, item_id in enumerate(ids)]
        self.indexes[which].apply(changes)
        self.expected.apply(*changes)
        self.indexes[1 - which].refresh()

    @rule(item_id=ANY_ID, which=st.integers(0, 1))
    def take_out(self, item_id: str, which: int) -> None:
        self.indexes[which].apply([Change(item_id)])
        self.expected.apply(Change(item_id))
        self.indexes[1 - which].refresh()

    @rule(which=st.integers(0, 1), others=st.booleans())
    def compact(self, which: int, others: bool) -> None:
        self.indexes[which].compact()
        if others:
            self.indexes[1 - which].refresh()

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        self.indexes[which].close()
        self.indexes[which] = Index.open(self.path)

    @precondition(lambda self: len(generations(self.path)) > 1)
    @rule()
    def lose_the_newest_generation(self) -> None:
        """Damage the newest generation; the one before it and the changes since contain the same items."""
        for index in self.indexes:
            index.close()
        (generations(self.path)[-1] / "relations.json").write_bytes(b"[]")
        self.indexes = [Index.open(self.path), Index.open(self.path)]

    @invariant()
    def all_is_as_expected(self) -> None:
        for index in self.indexes:
            self.expected.check(index)

    def teardown(self) -> None:
        for index in self.indexes:
            index.close()
        self.folder.cleanup()


def run_changes(shop: FakeShop, place: Callable[[FakeShop, Path], Path], examples: int) -> None:
    Changing.TestCase.settings = settings(max_examples=examples, stateful_step_count=12, deadline=None)
    Changing.shop, Changing.place = shop, place
    Changing.TestCase("runTest").runTest()


def test_matches_dictionary_after_random_changes(shop: FakeShop) -> None:
    run_changes(shop, copied, examples=12)


def test_matches_dictionary_with_journal_on_postgres(shop: FakeShop, postgres: Server) -> None:
    run_changes(shop, lambda of, to: placed(of, to, journal=postgres.url()), examples=5)


def test_matches_dictionary_with_vectors_in_milvus(shop: FakeShop, milvus_lite: str) -> None:
    run_changes(shop, lambda of, to: placed(of, to, vectors=milvus_lite), examples=3)


@pytest.mark.soak
def test_matches_dictionary_with_postgres_and_milvus(
    shop: FakeShop, postgres: Server, milvus_server: str
) -> None:
    run_changes(shop, lambda of, to: placed(of, to, milvus_server, postgres.url()), examples=100)


def test_change_is_visible_to_next_query_and_survives_reopening(index: Index, folder: Path) -> None:
    index.apply([made("new", 1), Change("cot")])
    for opened in (index, Index.open(folder)):
        assert opened.snapshot.get("new").item_id == "new"
        with pytest.raises(UnknownItemError, match="'cot'"):
            opened.reader().neighbours("cot", "gardeners", Similarity.AVG, 3)


def test_snapshot_does_not_change(index: Index) -> None:
    before = index.snapshot
    index.apply([made("bib", 1), Change("cot"), *(made(f"new-{n}", n) for n in range(200))])
    assert [item.item_id for _, item in before.page(0, 1_000)] == ids()
    assert before.get("bib").title == "Striped bib"
    assert len(index) == len(ids()) - 1 + 200


def test_compaction_keeps_item_order(index: Index) -> None:
    index.apply([made("twin-2", 5), made("new", 5), Change("tie")])
    before = [item.item_id for _, item in index.snapshot.page(0, 100)]
    index.compact()
    assert [item.item_id for _, item in index.snapshot.page(0, 100)] == before
    assert [row for row, _ in index.snapshot.page(0, 100)] == list(range(len(before)))


def test_pages_skip_deleted_items(index: Index) -> None:
    index.apply([Change("red-mug"), Change("twin-1"), made("cot", 3)])
    rows = [row for row, _ in index.snapshot.page(0, 4)]
    assert rows == [1, 3, 4, 5]
    assert [item.item_id for _, item in index.snapshot.page(11, 4)] == ["bib", "cot"]


def test_writes_and_searches_continue_during_compaction(index: Index, shop: FakeShop) -> None:
    expected = Expected(shop)
    changes = [made(f"new-{n % 40}", n) for n in range(200)]

    def write() -> None:
        for change in changes:
            index.apply([change])
            hits = index.reader().neighbours(change.item_id, "gardeners", Similarity.TT, 100)
            found = [hit.item.item_id for hit in hits]
            assert len(found) == len(set(found))
            assert change.item_id not in found
            assert set(ids()) <= {*found, change.item_id}

    with ThreadPoolExecutor(2) as threads:
        writing = threads.submit(write)
        while not writing.done():
            index.compact()
        writing.result()
    expected.apply(*changes)
    expected.check(index)


def test_keeps_two_generations_and_only_the_changes_they_need(index: Index, folder: Path) -> None:
    for n in range(4):
        index.apply([made(f"new-{n}", n)])
        index.compact()
    assert [path.name for path in generations(folder)] == ["generation-000004", "generation-000005"]
    assert {path.name.partition("-wal")[0].partition("-shm")[0] for path in folder.iterdir()} == {
        "generation-000004",
        "generation-000005",
        JOURNAL_FILE,
        MARK_FILE,
    }
    assert [one.sequence for one in index.journal.since(0)] == [4]


def test_skips_and_reports_damaged_generation(
    index: Index, folder: Path, shop: FakeShop, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = Expected(shop)
    changes = [made("new", 1), Change("cot"), made("bib", 2)]
    index.apply(changes[:2])
    index.compact()
    index.apply(changes[2:])
    newest = generations(folder)[-1]
    (newest / "vectors" / "001.text.faiss").write_bytes(b"")
    expected.apply(*changes)
    again = Index.open(folder)
    expected.check(again)
    said = capsys.readouterr().err
    assert f"{newest}/vectors/001.text.faiss was changed after it was written" in said
    assert "Using generation-000001 and the changes made since then." in said
    again.close()


def test_does_not_open_without_intact_generation(index: Index, folder: Path) -> None:
    index.compact()
    for path in generations(folder):
        (path / "relations.json").unlink()
    with pytest.raises(ArtifactError, match=r"generation-000002/relations\.json is missing"):
        Index.open(folder)


def test_rejects_rebuild_until_changes_are_discarded(folder: Path, shop: FakeShop) -> None:
    index = Index.open(folder)
    index.apply([made("new", 1)])
    index.close()
    config = BuildConfig(checkpoint=shop.checkpoint, prepared=shop.prepared, out=folder)
    parents = Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared)
    with pytest.raises(InputError, match=r"last sequence number: 1\).*--discard-changes"):
        build(config, FakeEncoder(), *parents)
    for changed in (
        config.model_copy(update={"discard_changes": True}),
        config,
    ):  # the second build has no changes to discard
        build(changed, FakeEncoder(), *parents)
        index = Index.open(folder)
        Expected(shop).check(index)
        index.close()
    assert [path.name for path in generations(folder)] == ["generation-000003"]
    index = Index.open(folder)
    index.apply([made("newer", 2)])
    index.close()
    assert Index.open(folder).snapshot.get("newer").item_id == "newer"


def test_open_index_rejects_rebuild_from_another_checkpoint(
    index: Index, folder: Path, shop: FakeShop, tmp_path: Path
) -> None:
    index.apply([made("new", 1)])
    write_checkpoint(tmp_path / "other", seed=9)
    config = BuildConfig(
        checkpoint=tmp_path / "other", prepared=shop.prepared, out=folder, discard_changes=True
    )
    build(config, FakeEncoder(), Checkpoint.open(tmp_path / "other"), Prepared.open(shop.prepared))
    with pytest.raises(MismatchError, match="was rebuilt from another checkpoint"):
        index.refresh()
    assert index.snapshot.get("new").item_id == "new"


def test_compact_and_verify_commands(index: Index, folder: Path) -> None:
    assert compact(CompactConfig(index=folder)) == f"{folder} has no changes since its newest generation."
    index.apply([made("new", 1), Change("cot")])
    assert "2 changes since" in verify(VerifyConfig(index=folder))
    assert compact(CompactConfig(index=folder)).endswith("generation-000002: 12 items.")
    index.refresh()
    assert index.snapshot.generation.path.name == "generation-000002"
    assert index.snapshot.overlay.changes == 0
    assert "0 changes since" in verify(VerifyConfig(index=folder))


def test_rejects_folder_with_earlier_layout(shop: FakeShop) -> None:
    with pytest.raises(
        ArtifactError, match=r"was built by an earlier version of rcml\. Run `rcml index build`"
    ):
        Index.open(shop.generation)


def test_emptied_index_can_be_filled_again(index: Index) -> None:
    index.apply([Change(item_id) for item_id in ids()])
    index.compact()
    assert len(index) == 0
    index.apply([made("first", 1), made("second", 1)])
    assert [
        hit.item.item_id for hit in index.reader().neighbours("first", "gardeners", Similarity.AVG, 5)
    ] == ["second"]
