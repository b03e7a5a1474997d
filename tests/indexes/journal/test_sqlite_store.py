"""A SQLite journal is created on first use, fsyncs every commit, and rejects files that are not a journal."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexes.journal.journal import Journal
from indexes.journal.sqlite_store import JOURNAL_FILE, SqliteStore
from indexes.journal.store import last_sequence
from model.errors import ArtifactError, ReadOnlyError, StorageError
from tests.rights import closed

from .test_journal import opened, put


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = opened(SqliteStore(tmp_path))
    yield journal
    journal.close()


def test_creates_no_file_without_changes(journal: Journal, tmp_path: Path) -> None:
    assert (journal.newest(), journal.since(0), last_sequence(SqliteStore(tmp_path))) == (0, [], 0)
    assert list(tmp_path.iterdir()) == []


def test_reports_empty_file_as_damaged(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / JOURNAL_FILE).touch()
    for question in (journal.newest, lambda: last_sequence(SqliteStore(tmp_path)), lambda: journal.since(0)):
        with pytest.raises(ArtifactError, match=rf"{JOURNAL_FILE} is damaged"):
            question()
    with pytest.raises(StorageError, match=r"no such table"):
        journal.append([put("cup")])


def test_fsyncs_every_commit(journal: Journal) -> None:
    journal.append([put("cup")])
    engine = journal.engine()
    assert engine is not None
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2  # FULL


@pytest.mark.parametrize("pages", range(4, 30))
def test_full_disk_rejects_whole_change_and_still_allows_reads(tmp_path: Path, pages: int) -> None:
    """Limit the file to `pages`, so that SQLite fails at the same write as on a full file system."""
    journal = opened(SqliteStore(tmp_path))
    journal.append([put("first")])
    engine = journal.engine()
    assert engine is not None
    with engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    acknowledged, refusal = 1, ""
    while acknowledged < 300:
        try:
            journal.append([put("a", 1), put("b", 2), put("c", 3)])
        except StorageError as error:
            refusal = str(error)
            break
        acknowledged += 3
    assert JOURNAL_FILE in refusal
    assert "full). Nothing was changed" in refusal
    assert len(journal.since(0)) == acknowledged
    journal.close()
    again = opened(SqliteStore(tmp_path))
    assert len(again.since(0)) == acknowledged
    assert again.append([put("room again")])[0].sequence == acknowledged + 1
    again.close()


def test_reports_file_that_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_FILE).write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(ArtifactError, match=f"{JOURNAL_FILE} is damaged"):
        opened(SqliteStore(tmp_path)).since(0)
    with pytest.raises(StorageError, match="Nothing was changed"):
        opened(SqliteStore(tmp_path)).append([put("a")])


def entries(journal: Journal) -> list[tuple[int, str]]:
    return [(one.sequence, one.change.item_id) for one in journal.since(0)]


def test_changes_are_read_from_a_folder_that_may_only_be_read(tmp_path: Path) -> None:
    writer = opened(SqliteStore(tmp_path))
    writer.append([put("cup"), put("mug")])
    writer.close()
    with closed(tmp_path):
        reader = opened(SqliteStore(tmp_path))
        assert entries(reader) == [(1, "cup"), (2, "mug")]
        assert last_sequence(SqliteStore(tmp_path)) == 2
        assert [path.name for path in tmp_path.iterdir()] == [JOURNAL_FILE]
        reader.close()


def test_folder_without_changes_may_only_be_read(tmp_path: Path) -> None:
    with closed(tmp_path):
        assert entries(opened(SqliteStore(tmp_path))) == []


def killed(folder: Path) -> None:
    """Leave the folder as a writer leaves it that was killed after two changes: with a log that is not folded in."""
    writer = opened(SqliteStore(folder / "live"))
    writer.append([put("cup"), put("mug")])
    shutil.copytree(folder / "live", folder / "left")
    writer.close()
    assert (folder / "left" / f"{JOURNAL_FILE}-wal").stat().st_size > 0


def test_changes_still_in_the_log_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    killed(tmp_path)
    with closed(tmp_path / "left"):
        assert entries(opened(SqliteStore(tmp_path / "left"))) == [(1, "cup"), (2, "mug")]


def test_log_that_cannot_be_read_is_never_ignored(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    killed(tmp_path)
    (tmp_path / "left" / f"{JOURNAL_FILE}-shm").unlink()
    with closed(tmp_path / "left"), pytest.raises(ArtifactError, match=r"not yet in changes\.sqlite"):
        entries(opened(SqliteStore(tmp_path / "left")))
    assert entries(opened(SqliteStore(tmp_path / "left"))) == [(1, "cup"), (2, "mug")]


def test_reader_follows_a_writer_with_more_rights(tmp_path: Path) -> None:
    writer = opened(SqliteStore(tmp_path))
    writer.append([put("cup")])
    with closed(tmp_path):
        reader = opened(SqliteStore(tmp_path))
        assert entries(reader) == [(1, "cup")]
        writer.append([put("mug")])
        assert entries(reader) == [(1, "cup"), (2, "mug")]
    writer.close()  # folds the log into the file and removes it
    with closed(tmp_path):
        assert entries(reader) == [(1, "cup"), (2, "mug")]


def test_change_of_a_folder_that_may_only_be_read_is_refused_until_it_may_be_written(tmp_path: Path) -> None:
    writer = opened(SqliteStore(tmp_path))
    writer.append([put("cup")])
    writer.close()
    journal = opened(SqliteStore(tmp_path))
    with closed(tmp_path):
        assert entries(journal) == [(1, "cup")]
        with pytest.raises(ReadOnlyError, match="may not be written by this user"):
            journal.append([put("mug")])
    journal.append([put("jug")])
    assert entries(journal) == [(1, "cup"), (2, "jug")]


def test_first_change_of_a_folder_that_may_only_be_read_is_refused(tmp_path: Path) -> None:
    with closed(tmp_path), pytest.raises(ReadOnlyError):
        opened(SqliteStore(tmp_path)).append([put("cup")])
    assert list(tmp_path.iterdir()) == []


def test_file_is_readable_as_the_umask_says(journal: Journal, tmp_path: Path) -> None:
    before = os.umask(0o027)
    journal.append([put("cup")])
    os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        JOURNAL_FILE: 0o640,
        f"{JOURNAL_FILE}-wal": 0o640,
        f"{JOURNAL_FILE}-shm": 0o640,
    }


@pytest.mark.parametrize("name", [b"caf\xe9", b"50% off?#1", "Läden".encode()])
def test_folder_may_have_any_name(name: bytes, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    journal = opened(SqliteStore(folder))
    journal.append([put("cup")])
    assert entries(journal) == [(1, "cup")]
    journal.close()
    with closed(folder):
        assert entries(opened(SqliteStore(folder))) == [(1, "cup")]
