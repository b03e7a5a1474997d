"""Several processes share an index folder and a Postgres journal; each soon shows the changes of the others."""

import random
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from signal import SIGQUIT

import pytest

from indexes.admin.backup import restore, snapshot
from indexes.admin.inspection import compact, verify
from indexes.builder.build import build
from indexes.config import BuildConfig, CompactConfig, RestoreConfig, SnapshotConfig, VerifyConfig
from indexes.index import Index
from indexes.journal.change import Change
from indexes.journal.sqlite_store import JOURNAL_FILE
from indexes.storage.generation import Generation
from indexes.storage.layout import generations
from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared_data import Prepared
from model.errors import InputError, StorageError
from model.similarity import Similarity
from service.engine.index_follower import REFRESH_INTERVAL_S, IndexFollower
from tests.indexes.changes import Expected, made, placed
from tests.indexes.durability.test_crashes import CLEAN
from tests.indexes.fakes import FakeEncoder, FakeShop
from tests.indexes.postgres_server import Server

SOON = 1.0
"""Maximum time, in seconds, until every replica shows an acknowledged change."""


@pytest.fixture
def folder(shop: FakeShop, tmp_path: Path, postgres: Server) -> Path:
    return placed(shop, tmp_path, journal=postgres.url())


@pytest.fixture
def index(folder: Path) -> Iterator[Index]:
    index = Index.open(folder)
    yield index
    index.close()


def replica(folder: Path, told: Connection) -> None:
    """Follow the index as a server does until a message arrives.

    Then send the IDs of all items and, for each refresh, its start time and the newest sequence number that it reached.
    """
    index = Index.open(folder)
    refresh, looks = index.refresh, list[tuple[float, int]]()

    def look() -> None:
        begun = time.monotonic()
        refresh()
        looks.append((begun, index.snapshot.overlay.sequence))

    index.refresh = look  # type: ignore[method-assign]
    follower = IndexFollower(index, compact_at=0)
    told.send("open")
    told.recv()
    ended = time.monotonic()
    while not looks or looks[-1][0] < ended:
        time.sleep(0.01)
    follower.close()
    told.send((looks, [item.item_id for _, item in index.snapshot.page(0, 1_000)]))
    index.close()


def test_replicas_show_acknowledged_change_at_next_refresh(index: Index, folder: Path) -> None:
    pairs = [CLEAN.Pipe() for _ in range(2)]
    processes = [CLEAN.Process(target=replica, args=(folder, theirs)) for _, theirs in pairs]
    for process in processes:
        process.start()
    for ours, _ in pairs:
        assert ours.recv() == "open"
    acknowledged: dict[int, float] = {}
    rng = random.Random(0)
    for number in range(12):
        index.apply([made(f"new-{number}", number)])
        acknowledged[index.snapshot.overlay.sequence] = time.monotonic()
        if number == 6:
            index.compact()
        time.sleep(rng.uniform(0, REFRESH_INTERVAL_S))
    expected = [item.item_id for _, item in index.snapshot.page(0, 1_000)]
    assert len(expected) == 24
    for ours, _ in pairs:
        ours.send("end")
    for ours, _ in pairs:
        looks, items = ours.recv()
        assert items == expected
        for sequence, at in acknowledged.items():
            assert next(seen for begun, seen in looks if begun > at) >= sequence
    for process in processes:
        process.join(600)
        assert process.exitcode == 0
    assert REFRESH_INTERVAL_S < SOON / 2


def test_replica_answers_during_postgres_outage_and_recovers(
    index: Index, folder: Path, shop: FakeShop, postgres: Server
) -> None:
    expected = Expected(shop)
    index.apply([made("new", 1)])
    expected.apply(made("new", 1))
    postgres.stop(SIGQUIT)
    try:
        with pytest.raises(StorageError, match="is unavailable"):
            index.refresh()
        with pytest.raises(StorageError, match="Nothing was changed"):
            index.apply([made("lost", 2)])
        assert [item.item_id for _, item in index.snapshot.page(0, 100)] == list(expected.items)
        assert len(index.reader().neighbours("new", "gardeners", Similarity.AVG, 3)) == 3
    finally:
        postgres.start()
    index.apply([Change("cot")])
    expected.apply(Change("cot"))
    expected.check(index)
    again = Index.open(folder)
    expected.check(again)
    again.close()


def test_all_commands_use_postgres_journal(index: Index, folder: Path, shop: FakeShop) -> None:
    expected = Expected(shop)
    index.apply([made("new", 1), Change("cot")])
    expected.apply(made("new", 1), Change("cot"))
    assert "2 changes since" in verify(VerifyConfig(index=folder))
    snapshot(SnapshotConfig(index=folder, out=folder.parent / "snapshot"))
    assert compact(CompactConfig(index=folder)).endswith("generation-000002: 12 items.")
    index.apply([made("lost", 3)])
    restore(RestoreConfig(snapshot=folder.parent / "snapshot", out=folder))
    index.refresh()
    expected.check(index)
    later = made("later", 4)
    index.apply([later])
    expected.apply(later)
    again = Index.open(folder)
    expected.check(again)
    again.close()
    assert not (folder / JOURNAL_FILE).exists()


def test_backup_stores_changes_in_a_file(
    index: Index, folder: Path, shop: FakeShop, postgres: Server
) -> None:
    expected = Expected(shop)
    changes = [made("new", 1), Change("cot")]
    index.apply(changes)
    expected.apply(*changes)
    out = folder.parent / "snapshot"
    snapshot(SnapshotConfig(index=folder, out=out))
    assert (out / JOURNAL_FILE).exists()
    postgres.stop()
    try:
        copy = Index.open(out)
        expected.check(copy)
        copy.close()
    finally:
        postgres.start()


def test_rebuild_keeps_journal_and_rejects_another(
    index: Index, folder: Path, shop: FakeShop, postgres: Server
) -> None:
    journal = Generation.open_newest(folder).config.journal
    assert journal is not None
    config = BuildConfig(
        checkpoint=shop.checkpoint,
        prepared=shop.prepared,
        out=folder,
        journal=journal.partition("?")[0],
        discard_changes=True,
    )
    parents = Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared)
    index.apply([made("lost", 1)])
    with pytest.raises(InputError, match=r"has changes that are not in .* \(last sequence number: 1\)"):
        build(config.model_copy(update={"discard_changes": False}), FakeEncoder(), *parents)
    for other in (None, postgres.url()):
        with pytest.raises(InputError, match=r"keeps its changes in postgresql://rcml@.* \(schema test_"):
            build(config.model_copy(update={"journal": other}), FakeEncoder(), *parents)
    build(config, FakeEncoder(), *parents)
    again = Index.open(folder)
    Expected(shop).check(again)
    again.apply([made("new", 2)])
    assert again.snapshot.overlay.sequence == 2
    again.close()
    assert [path.name for path in generations(folder)] == ["generation-000003"] or len(
        generations(folder)
    ) <= 2
