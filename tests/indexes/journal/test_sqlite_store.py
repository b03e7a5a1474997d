"""A SQLite journal is created on first use, fsyncs every commit, and rejects files that are not a journal."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from indexes.journal.journal import Journal
from indexes.journal.sqlite_store import JOURNAL_FILE, SqliteStore
from indexes.journal.store import last_sequence
from model.errors import ArtifactError, StorageError

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
