"""Backup and restore of an index while other processes have it open."""

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from indexes.admin.backup import restore, snapshot
from indexes.admin.inspection import verify
from indexes.config import RestoreConfig, SnapshotConfig, VerifyConfig
from indexes.index import Index
from indexes.journal.change import Change
from indexes.journal.sqlite_store import JOURNAL_FILE
from indexes.storage.layout import generations
from model.errors import ArtifactError, MismatchError
from tests.indexes.changes import Expected, copied, made
from tests.indexes.fakes import FakeShop, write_checkpoint


@pytest.fixture
def folder(shop: FakeShop, tmp_path: Path) -> Path:
    return copied(shop, tmp_path)


@pytest.fixture
def index(folder: Path) -> Iterator[Index]:
    index = Index.open(folder)
    yield index
    index.close()


@pytest.fixture
def expected(shop: FakeShop) -> Expected:
    return Expected(shop)


def opened_is(expected: Expected, path: Path) -> None:
    index = Index.open(path)
    expected.check(index)
    index.close()


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("changes", [[], [made("new", 1), Change("cot")]])
def test_backup_can_be_opened_and_restored(
    index: Index, folder: Path, expected: Expected, changes: list[Change], compacted: bool
) -> None:
    index.apply(changes)
    expected.apply(*changes)
    if compacted:
        index.compact()
    out = folder.parent / "snapshot"
    assert snapshot(SnapshotConfig(index=folder, out=out)).startswith(
        f"Backed up {folder} to {out}: generation-"
    )
    opened_is(expected, out)
    index.apply([made("lost", 3), Change("bib"), Change("new")])
    said = restore(RestoreConfig(snapshot=out, out=folder))
    assert (
        said == f"Restored {folder} from {out}: {generations(folder)[-1].name}, {len(expected.items)} items."
    )
    opened_is(expected, folder)
    index.refresh()
    expected.check(index)
    later = [made("later", 4), made("lost", 5)]
    index.apply(later)
    expected.apply(*later)
    expected.check(index)
    opened_is(expected, folder)
    assert "is intact" in verify(VerifyConfig(index=folder))


def test_backup_during_changes_equals_index_between_two_changes(
    index: Index, folder: Path, shop: FakeShop
) -> None:
    """Back up an index that another thread changes and compacts.

    Every backup equals the index as it was between two changes, and includes all changes acknowledged before the backup
    started.
    """
    changes = [made(f"new-{n}", n) for n in range(120)]

    def change() -> None:
        for number, one in enumerate(changes):
            index.apply([one])
            if number % 10 == 9:
                index.compact()

    with ThreadPoolExecutor(1) as thread:
        changing = thread.submit(change)
        copies: list[tuple[int, Path]] = []
        while not changing.done():
            before = index.snapshot.overlay.sequence
            out = folder.parent / f"snapshot-{len(copies)}"
            snapshot(SnapshotConfig(index=folder, out=out))
            copies.append((before, out))
        changing.result()
    for before, out in copies:
        copy = Index.open(out)
        sequence = copy.snapshot.overlay.sequence
        assert before <= sequence <= len(changes)
        expected = Expected(shop)
        expected.apply(*changes[:sequence])
        expected.check(copy)
        copy.close()
    assert len(copies) >= 3


def test_restores_index_to_new_location(index: Index, folder: Path, expected: Expected) -> None:
    index.apply([made("new", 1)])
    expected.apply(made("new", 1))
    out = folder.parent / "snapshot"
    snapshot(SnapshotConfig(index=folder, out=out))
    elsewhere = folder.parent / "elsewhere" / "index"
    with pytest.raises(
        ArtifactError, match=r"belongs to the checkpoint at .* which does not exist\..*--checkpoint\."
    ):
        restore(RestoreConfig(snapshot=out, out=elsewhere))
    assert not elsewhere.exists()
    restore(RestoreConfig(snapshot=out, out=elsewhere, checkpoint=folder.parent / "checkpoint"))
    opened_is(expected, elsewhere)  # the stored path of the checkpoint is valid at the new location


def test_restore_keeps_damaged_journal_under_another_name(
    folder: Path, expected: Expected, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder.parent / "snapshot"
    snapshot(SnapshotConfig(index=folder, out=out))
    (folder / JOURNAL_FILE).write_bytes(b"no database")
    restore(RestoreConfig(snapshot=out, out=folder))
    said = capsys.readouterr().err
    assert f"{folder}/{JOURNAL_FILE} is damaged" in said
    assert "The damaged journal is kept under another name. Restart the servers" in said
    assert (folder / f"{JOURNAL_FILE}.damaged").read_bytes() == b"no database"
    opened_is(expected, folder)


@pytest.mark.parametrize("name", ["catalogue.sqlite", "pictures/00003.png"])
def test_restore_rejects_damaged_backup_and_changes_nothing(
    index: Index, folder: Path, expected: Expected, name: str
) -> None:
    out = folder.parent / "snapshot"
    snapshot(SnapshotConfig(index=folder, out=out))
    path = out / "generation-000001" / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=name):
        restore(RestoreConfig(snapshot=out, out=folder))
    assert len(generations(folder)) == 1
    expected.check(index)


def missing(picture: Path) -> None:
    picture.unlink()


def flipped(picture: Path) -> None:
    content = picture.read_bytes()
    picture.unlink()  # the pictures of other generations may be hard links
    picture.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def endless(picture: Path) -> None:
    picture.unlink()
    picture.symlink_to("/dev/zero")


def fifo(picture: Path) -> None:
    picture.unlink()
    os.mkfifo(picture)


@pytest.mark.parametrize("damage", [missing, flipped, endless, fifo])
def test_backup_names_damaged_pictures(
    folder: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    damage(folder / "generation-000001" / "pictures" / "00003.png")
    out = folder.parent / "snapshot"
    snapshot(SnapshotConfig(index=folder, out=out))
    assert "1 pictures in the backup are damaged" in (said := capsys.readouterr().err)
    assert "refuse it: pictures/00003.png. Restore" in said
    with pytest.raises(ArtifactError, match=r"pictures/00003\.png"):
        restore(RestoreConfig(snapshot=out, out=folder))


def test_backup_and_restore_do_not_overwrite_other_files(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").touch()
    with pytest.raises(
        ArtifactError, match=r"mine already exists, and a backup does not overwrite it\. Choose another --out"
    ):
        snapshot(SnapshotConfig(index=folder, out=tmp_path / "mine"))
    snapshot(SnapshotConfig(index=folder, out=tmp_path / "snapshot"))
    with pytest.raises(ArtifactError, match="mine exists and is not an index"):
        restore(RestoreConfig(snapshot=tmp_path / "snapshot", out=tmp_path / "mine"))


def test_restore_rejects_another_checkpoint(folder: Path, tmp_path: Path) -> None:
    snapshot(SnapshotConfig(index=folder, out=tmp_path / "snapshot"))
    write_checkpoint(tmp_path / "other", seed=9)
    with pytest.raises(MismatchError, match="was built from checkpoint"):
        restore(RestoreConfig(snapshot=tmp_path / "snapshot", out=folder, checkpoint=tmp_path / "other"))
    shutil.rmtree(tmp_path / "snapshot")
