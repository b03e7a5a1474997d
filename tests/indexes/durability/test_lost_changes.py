"""Acknowledged changes that vanish from a journal: the index says which are missing, and opens once that is accepted.

A writer is killed, and then files of its journal are deleted, damaged, or replaced. The index must refuse to open, or
contain every acknowledged change.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection

from indexes.admin.accept_loss import accept_loss
from indexes.admin.backup import restore, snapshot
from indexes.admin.inspection import stats, verify
from indexes.config import AcceptLossConfig, RestoreConfig, SnapshotConfig, StatsConfig, VerifyConfig
from indexes.index import Index
from indexes.journal.change import Change
from indexes.journal.high_water_mark import MARK_FILE, SLOT_BYTES
from indexes.journal.sqlite_store import JOURNAL_FILE
from indexes.storage.layout import journal_store
from model.errors import ArtifactError, LostChangesError, StorageError
from tests.indexes.changes import Expected, copied, made, placed
from tests.indexes.fakes import FakeShop
from tests.indexes.postgres_server import Server
from tests.rights import closed

WAL = f"{JOURNAL_FILE}-wal"
SHM = f"{JOURNAL_FILE}-shm"
CHANGES = [[made("new", 1)], [Change("cot"), made("bib", 2)], [made("newer", 3)]]
LAST = 4
"""Sequence number of the last of `CHANGES`."""


def killed(shop: FakeShop, folder: Path) -> Path:
    """Return the path of an index whose writer was killed after `CHANGES`, so that they are only in the `-wal`."""
    (folder / "live").mkdir()
    index = Index.open(copied(shop, folder / "live"))
    for changes in CHANGES:
        index.apply(changes)
    left = Path(shutil.copytree(folder / "live", folder / "left"))
    index.close()
    return left / "index"


def expected(shop: FakeShop, *steps: list[Change]) -> Expected:
    found = Expected(shop)
    for changes in steps:
        found.apply(*changes)
    return found


@contextmanager
def writing(index: Index) -> Iterator[Connection]:
    """Open a write transaction in the journal of an index."""
    store = journal_store(index.path, index.snapshot.generation.config)
    engine = store.engine()
    assert engine is not None
    with store.writing(engine) as connection:
        yield connection
    engine.dispose()


def remove(*names: str) -> Callable[[Path], None]:
    def damage(index: Path) -> None:
        for name in names:
            (index / name).unlink()

    return damage


def truncate_log(index: Path) -> None:
    content = (index / WAL).read_bytes()
    (index / WAL).write_bytes(content[: len(content) * 2 // 3])


def flip_last_frame(index: Path) -> None:
    content = bytearray((index / WAL).read_bytes())
    content[-2_000] ^= 4
    (index / WAL).write_bytes(content)


def empty_log(index: Path) -> None:
    (index / WAL).write_bytes(b"")


DAMAGES: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "journal": (remove(JOURNAL_FILE, WAL, SHM), "Missing: 4 acknowledged changes, numbers 1 to 4 "),
    "log": (remove(WAL), "Missing: 4 acknowledged changes, numbers 1 to 4 "),
    "empty log": (empty_log, "Missing: 4 acknowledged changes, numbers 1 to 4 "),
    "truncated log": (truncate_log, "acknowledged changes, numbers [123] to 4 "),
    "flipped bit": (flip_last_frame, "Missing: 1 acknowledged changes, numbers 4 to 4 "),
    "mark": (remove(MARK_FILE), f"{MARK_FILE} is missing. It is unknown which changes are missing"),
    "journal and mark": (
        remove(JOURNAL_FILE, WAL, SHM, MARK_FILE),
        f"{MARK_FILE} is missing. It is unknown which changes are missing",
    ),
    "log and mark": (remove(WAL, MARK_FILE), "It is unknown which changes are missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_names_the_lost_changes_and_continues_once_the_loss_is_accepted(
    shop: FakeShop, tmp_path: Path, damage: str
) -> None:
    index = killed(shop, tmp_path)
    inflict, message = DAMAGES[damage]
    inflict(index)
    for _ in range(2):  # a refusal changes nothing
        with pytest.raises(LostChangesError, match=message):
            Index.open(index)
    assert "Accepted the loss of" in accept_loss(AcceptLossConfig(index=index))
    assert "lacks no acknowledged change" in accept_loss(AcceptLossConfig(index=index))
    opened = Index.open(index)
    opened.apply([made("after", 5)])
    opened.close()
    opened = Index.open(index)
    assert "after" in opened.snapshot
    if damage not in ("mark", "journal and mark", "log and mark"):
        assert opened.snapshot.overlay.sequence == LAST + 1  # no number of a lost change is given again
        assert "changes lost" in stats(StatsConfig(index=index))
    opened.compact()
    opened.close()
    assert "is intact" in verify(VerifyConfig(index=index))


def test_keeps_the_changes_before_the_damage(shop: FakeShop, tmp_path: Path) -> None:
    index = killed(shop, tmp_path)
    flip_last_frame(index)
    accept_loss(AcceptLossConfig(index=index))
    opened = Index.open(index)
    expected(shop, *CHANGES[:2]).check(opened)
    opened.close()


def test_a_killed_or_closed_writer_is_no_loss(shop: FakeShop, tmp_path: Path) -> None:
    index = killed(shop, tmp_path)
    (index / SHM).unlink()  # SQLite makes it again
    for path in (index, tmp_path / "live" / "index"):
        opened = Index.open(path)
        expected(shop, *CHANGES).check(opened)
        opened.close()
        assert "lacks no acknowledged change" in accept_loss(AcceptLossConfig(index=path))


def test_notices_an_older_copy_of_the_journal(shop: FakeShop, tmp_path: Path) -> None:
    index = Index.open(copied(shop, tmp_path))
    index.apply(CHANGES[0])
    index.close()
    older = (index.path / JOURNAL_FILE).read_bytes()
    index = Index.open(index.path)
    index.apply(CHANGES[1])
    index.close()
    (index.path / JOURNAL_FILE).write_bytes(older)
    with pytest.raises(LostChangesError, match=r"it ends at change 1\. Missing: 2 .* numbers 2 to 3 "):
        Index.open(index.path)


def test_notices_the_journal_of_a_copy_of_the_index(shop: FakeShop, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    index, other = Index.open(copied(shop, tmp_path)), Index.open(copied(shop, tmp_path / "other"))
    index.apply([made("new", 1)])
    other.apply([made("foreign", 2)])
    other.apply([made("foreign", 3)])
    for one in (index, other):
        one.close()
    shutil.copyfile(other.path / JOURNAL_FILE, index.path / JOURNAL_FILE)
    with pytest.raises(LostChangesError, match="change 1 is another than was acknowledged"):
        Index.open(index.path)


@pytest.mark.parametrize("name", [JOURNAL_FILE, MARK_FILE])
def test_an_index_without_changes_needs_its_journal_too(shop: FakeShop, tmp_path: Path, name: str) -> None:
    index = copied(shop, tmp_path)
    (index / name).unlink()
    with pytest.raises(LostChangesError, match="missing"):
        Index.open(index)
    accept_loss(AcceptLossConfig(index=index))
    opened = Index.open(index)
    expected(shop).check(opened)
    opened.close()


def test_changes_that_a_generation_includes_are_not_lost(shop: FakeShop, tmp_path: Path) -> None:
    index = Index.open(copied(shop, tmp_path))
    index.apply(CHANGES[0])
    index.compact()
    index.close()
    (index.path / JOURNAL_FILE).unlink()
    with pytest.raises(LostChangesError, match="No change is known to be missing"):
        Index.open(index.path)
    accept_loss(AcceptLossConfig(index=index.path))
    opened = Index.open(index.path)
    expected(shop, CHANGES[0]).check(opened)
    opened.close()


def test_loss_is_noticed_in_a_folder_that_may_only_be_read(shop: FakeShop, tmp_path: Path) -> None:
    index = killed(shop, tmp_path)
    Index.open(index).close()  # folds the log into the file
    (index / JOURNAL_FILE).write_bytes((shop.index / JOURNAL_FILE).read_bytes())
    with closed(index), pytest.raises(LostChangesError, match="numbers 1 to 4 "):
        Index.open(index)


@pytest.mark.parametrize(
    "damage",
    [
        remove(JOURNAL_FILE),
        remove(WAL),
        remove(JOURNAL_FILE, WAL, SHM),
        lambda index: renewed(index / JOURNAL_FILE),
    ],
    ids=["database deleted", "log deleted", "all deleted", "database replaced"],
)
def test_running_server_acknowledges_no_change_to_a_file_that_is_gone(
    shop: FakeShop, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    index = Index.open(copied(shop, tmp_path))
    index.apply([made("stored", 1)])
    damage(index.path)
    with pytest.raises(StorageError, match="was deleted or replaced while it was in use"):
        index.apply([made("unstored", 2)])
    assert "unstored" not in index.snapshot
    index.close()


def renewed(path: Path) -> None:
    """Replace a file by a copy of itself."""
    aside = Path(shutil.copy2(path, path.with_suffix(".copy")))
    aside.replace(path)


def test_running_server_notices_a_journal_that_goes_back(shop: FakeShop, tmp_path: Path) -> None:
    index = Index.open(copied(shop, tmp_path))
    index.apply(CHANGES[0])
    with writing(index) as connection:
        connection.exec_driver_sql("UPDATE lineage SET given = 0")
    with pytest.raises(LostChangesError, match=r"change 1 was read before\. Missing: 1 "):
        index.refresh()
    index.close()


def test_postgres_that_is_restored_to_an_earlier_time_is_noticed(
    shop: FakeShop, tmp_path: Path, postgres: Server
) -> None:
    folder = placed(shop, tmp_path, journal=postgres.url())
    index, replica = Index.open(folder), Index.open(folder)
    for changes in CHANGES:
        index.apply(changes)
    replica.refresh()
    with writing(index) as connection:
        connection.exec_driver_sql("DELETE FROM changes WHERE sequence > 1")
        connection.exec_driver_sql("UPDATE lineage SET given = 1")
    with pytest.raises(LostChangesError, match=r"change 4 was read before\. Missing: 3 .* numbers 2 to 4"):
        replica.refresh()
    for opened in (index, replica):
        opened.close()
    with pytest.raises(LostChangesError, match=r"it ends at change 1\. Missing: 3 .* numbers 2 to 4"):
        Index.open(folder)
    assert "Accepted the loss of changes 2 to 4" in accept_loss(AcceptLossConfig(index=folder))
    again = Index.open(folder)
    expected(shop, CHANGES[0]).check(again)
    again.apply([made("after", 5)])
    assert again.snapshot.overlay.sequence == LAST + 1
    again.close()


def test_backup_has_a_mark_and_restores_after_a_loss(shop: FakeShop, tmp_path: Path) -> None:
    index = Index.open(copied(shop, tmp_path))
    index.apply(CHANGES[0])
    snapshot(SnapshotConfig(index=index.path, out=tmp_path / "backup"))
    index.apply(CHANGES[1])
    index.close()
    (index.path / JOURNAL_FILE).unlink()
    with pytest.raises(LostChangesError):
        Index.open(index.path)
    restore(RestoreConfig(snapshot=tmp_path / "backup", out=index.path))
    opened = Index.open(index.path)
    expected(shop, CHANGES[0]).check(opened)
    opened.apply([made("after", 5)])
    assert opened.snapshot.overlay.sequence == 4
    opened.close()
    (tmp_path / "backup" / JOURNAL_FILE).write_bytes((shop.index / JOURNAL_FILE).read_bytes())
    with pytest.raises(LostChangesError, match="numbers 1 to 1 "):
        Index.open(tmp_path / "backup")


def test_torn_write_of_the_mark_leaves_the_one_before(shop: FakeShop, tmp_path: Path) -> None:
    index = killed(shop, tmp_path)
    content = (index / MARK_FILE).read_bytes()
    slots = [content[:SLOT_BYTES], content[SLOT_BYTES:]]
    newest = max(range(2), key=lambda place: b'"sequence": 4' in slots[place])
    slots[newest] = slots[newest][:100] + bytes(SLOT_BYTES - 100)
    (index / MARK_FILE).write_bytes(b"".join(slots))
    opened = Index.open(index)
    expected(shop, *CHANGES).check(opened)
    opened.close()


@pytest.mark.parametrize("content", [b"", b"x" * 1024, bytes(1024), b"[" * 1024])
def test_reports_a_mark_that_is_damaged(shop: FakeShop, tmp_path: Path, content: bytes) -> None:
    index = copied(shop, tmp_path)
    (index / MARK_FILE).write_bytes(content)
    with pytest.raises(LostChangesError, match=rf"{MARK_FILE} is damaged"):
        Index.open(index)


def test_mark_that_is_not_a_file_does_not_block(shop: FakeShop, tmp_path: Path) -> None:
    index = copied(shop, tmp_path)
    (index / MARK_FILE).unlink()
    os.mkfifo(index / MARK_FILE)
    with pytest.raises(LostChangesError, match=rf"{MARK_FILE} is damaged"):
        Index.open(index)


def run_flips(shop: FakeShop, folder: Path, flips: int | None) -> int:
    """Flip single bits of the `-wal` of a killed writer: some at random, or one in every byte. Return the refusals."""
    index = killed(shop, folder)
    whole = {path.name: path.read_bytes() for path in index.iterdir() if path.is_file()}
    rng = random.Random(0)
    size = len(whole[WAL])
    refused = 0
    for at in range(size) if flips is None else rng.sample(range(size), flips):
        for name in (WAL, SHM):
            (index / name).unlink(missing_ok=True)
        for name, content in whole.items():
            (index / name).write_bytes(content)
        damaged = bytearray(whole[WAL])
        damaged[at] ^= 1 << rng.randrange(8)
        (index / WAL).write_bytes(damaged)
        (index / SHM).unlink()
        try:
            opened = Index.open(index)
        except ArtifactError:
            refused += 1
            continue
        assert opened.snapshot.overlay.sequence == LAST, f"byte {at}"
        assert [one.sequence for one in opened.journal.since(0)] == list(range(1, LAST + 1))
        opened.close()
    return refused


def test_no_flipped_bit_in_the_log_loses_a_change_unnoticed(shop: FakeShop, tmp_path: Path) -> None:
    assert run_flips(shop, tmp_path, 60) > 50


@pytest.mark.soak
def test_no_flipped_bit_in_any_byte_of_the_log_loses_a_change_unnoticed(
    shop: FakeShop, tmp_path: Path
) -> None:
    assert run_flips(shop, tmp_path, None) > 1_000


def test_index_of_an_earlier_version_is_upgraded_when_it_is_opened_and_compacted(
    shop: FakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier version wrote neither a mark nor, in the manifest, that there must be one."""
    with monkeypatch.context() as earlier:
        earlier.setattr("indexes.storage.generation.requires_journal", lambda counts: False)
        earlier.setattr("indexes.storage.layout.requires_journal", lambda counts: False)
        index = copied(shop, tmp_path)
        for name in (JOURNAL_FILE, MARK_FILE):
            (index / name).unlink()
        opened = Index.open(index)
        opened.apply(CHANGES[0])
        opened.close()
        (index / MARK_FILE).unlink()
        Index.open(index).close()
        content = (index / JOURNAL_FILE).read_bytes()
        (index / JOURNAL_FILE).unlink()
        with pytest.raises(LostChangesError, match="numbers 1 to 1 "):
            Index.open(index)
        (index / JOURNAL_FILE).write_bytes(content)
        opened = Index.open(index)
        opened.compact()
        opened.close()
    (index / MARK_FILE).unlink()
    with pytest.raises(LostChangesError, match="is missing"):
        Index.open(index)
