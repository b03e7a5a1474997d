"""Changes become durable, in order, together; and only what was written comes back."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event, Lock

import numpy as np
import pytest
from numpy import ndarray

from indexes.journal import FILE, Change, Journal, Recorded, last_sequence
from model.errors import ArtifactError, MismatchError, StorageError
from model.records import Item

SHAPE = (3, 2, 4)


def item(item_id: str, title: str = "Cup") -> Item:
    return Item(item_id, title, f"{title}.", ("Kitchen", "Weiß"), f"{title}. Kitchen", "cup.png")


def vectors(seed: int) -> ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float16)


def put(item_id: str, seed: int = 0) -> Change:
    return Change.put(item(item_id), vectors(seed), f"picture {seed}".encode())


def opened(folder: Path, lineage: str = "a" * 64, start: int = 0) -> Journal:
    return Journal(folder, lineage, start, SHAPE)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = opened(tmp_path)
    yield journal
    journal.close()


def test_without_changes_there_is_no_file(journal: Journal, tmp_path: Path) -> None:
    assert (journal.newest(), journal.since(0), last_sequence(tmp_path)) == (0, [], 0)
    assert list(tmp_path.iterdir()) == []


def test_an_emptied_file_is_damaged(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / FILE).touch()
    for question in (journal.newest, lambda: last_sequence(tmp_path), lambda: journal.since(0)):
        with pytest.raises(ArtifactError, match=rf"{FILE} is damaged"):
            question()
    with pytest.raises(StorageError, match=r"no such table"):
        journal.append([put("cup")])


def test_changes_come_back_as_they_were_after_opening_anew(journal: Journal, tmp_path: Path) -> None:
    journal.append([put("cup", 1), Change("mug")])
    journal.append([put("tasse-é", 2)])
    journal.close()
    again = opened(tmp_path)
    found = again.since(0)
    assert [(one.sequence, one.change.item_id) for one in found] == [(1, "cup"), (2, "mug"), (3, "tasse-é")]
    assert found[0].change.item == Item(
        "cup", "Cup", "Cup.", ("Kitchen", "Weiß"), "Cup. Kitchen", "pictures/change-000000001.png"
    )
    assert found[0].change.vectors is not None
    np.testing.assert_array_equal(found[0].change.vectors, vectors(1))
    assert found[1].change == Change("mug")
    assert again.picture(found[2]) == b"picture 2"
    assert [one.sequence for one in again.since(2)] == [3]
    again.close()


def test_what_the_writer_is_told_is_what_is_read_back(journal: Journal) -> None:
    told = journal.append([put("cup", 1), put("mug", 2), Change("cup")])
    read = journal.since(0)
    assert [(one.sequence, one.change.item, one.change.picture_sha256) for one in told] == [
        (one.sequence, one.change.item, one.change.picture_sha256) for one in read
    ]


def test_every_commit_is_synced(journal: Journal) -> None:
    journal.append([put("cup")])
    engine = journal._opened()
    assert engine is not None
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2  # FULL


def test_writers_that_come_together_share_a_commit(journal: Journal) -> None:
    journal.append([put("first")])
    published: list[list[Recorded]] = []
    begun, go_on = Event(), Event()

    def publish(recorded: list[Recorded]) -> None:
        if not published:
            begun.set()
            go_on.wait(10)
        published.append(recorded)

    with ThreadPoolExecutor(9) as writers:
        leader = writers.submit(journal.append, [put("leader")], publish)
        begun.wait(10)
        others = [writers.submit(journal.append, [put(f"other-{n}")], publish) for n in range(8)]
        while len(journal._queue) < 8:
            pass
        go_on.set()
        sequences = sorted(one.sequence for future in [leader, *others] for one in future.result())
    assert sequences == list(range(2, 11))
    assert [len(together) for together in published] == [1, 8]
    assert [one.sequence for together in published for one in together] == list(range(2, 11))


def test_writers_of_two_processes_never_share_a_sequence(journal: Journal, tmp_path: Path) -> None:
    other, start, lock = opened(tmp_path), Barrier(8), Lock()
    sequences: list[int] = []

    def write(n: int) -> None:
        start.wait()
        for _ in range(10):
            recorded = (journal, other)[n % 2].append([put(f"item-{n}"), Change(f"item-{n}")])
            assert recorded[1].sequence == recorded[0].sequence + 1
            with lock:
                sequences.extend(one.sequence for one in recorded)

    with ThreadPoolExecutor(8) as writers:
        list(writers.map(write, range(8)))
    assert sorted(sequences) == list(range(1, 161))
    assert [one.sequence for one in other.since(0)] == list(range(1, 161))
    other.close()


def test_a_sequence_is_never_given_again(journal: Journal, tmp_path: Path) -> None:
    journal.append([put("a"), put("b"), put("c")])
    journal.trim(3)
    assert (journal.newest(), journal.since(0), last_sequence(tmp_path)) == (0, [], 3)
    assert journal.append([put("d")])[0].sequence == 4


def test_a_new_file_goes_on_after_the_generation_it_lies_beside(tmp_path: Path) -> None:
    journal = opened(tmp_path, start=41)
    assert journal.append([put("a")])[0].sequence == 42
    journal.close()


@pytest.mark.parametrize("pages", range(4, 30))
def test_on_a_full_disk_a_change_is_refused_whole_and_reads_go_on(tmp_path: Path, pages: int) -> None:
    """SQLite refuses to grow beyond `pages`, as a file system refuses at that very write."""
    journal = opened(tmp_path)
    journal.append([put("first")])
    engine = journal._opened()
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
    assert FILE in refusal
    assert "full). Nothing was changed" in refusal
    assert len(journal.since(0)) == acknowledged
    journal.close()
    again = opened(tmp_path)
    assert len(again.since(0)) == acknowledged
    assert again.append([put("room again")])[0].sequence == acknowledged + 1
    again.close()


@pytest.mark.parametrize("column", ["item_id", "item", "vectors"])
def test_a_change_that_was_tampered_with_is_refused_by_number(
    journal: Journal, tmp_path: Path, column: str
) -> None:
    journal.append([put("a"), put("b"), put("c")])
    journal.close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        (old,) = connection.execute(f"SELECT {column} FROM changes WHERE sequence = 2").fetchone()
        new = b"x" + old[1:] if isinstance(old, bytes) else old.replace("b", "B", 1)
        connection.execute(f"UPDATE changes SET {column} = ? WHERE sequence = 2", (new,))
    again = opened(tmp_path)
    with pytest.raises(ArtifactError, match=rf"{FILE} is damaged \(change 2\); restore a snapshot"):
        again.since(0)
    again.close()


def test_what_is_no_database_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(ArtifactError, match=f"{FILE} is damaged"):
        opened(tmp_path).since(0)
    with pytest.raises(StorageError, match="Nothing was changed"):
        opened(tmp_path).append([put("a")])


def test_changes_to_another_index_are_refused(journal: Journal, tmp_path: Path) -> None:
    journal.append([put("a")])
    journal.close()
    with pytest.raises(MismatchError, match="holds changes to another index"):
        opened(tmp_path, lineage="b" * 64).since(0)


def test_of_an_index_that_was_built_anew_they_are_forgotten(journal: Journal, tmp_path: Path) -> None:
    journal.append([put("a"), put("b")])
    rebuilt = opened(tmp_path, lineage="b" * 64, start=2)
    assert rebuilt.since(0) == []
    assert rebuilt.append([put("c")])[0].sequence == 3
    with pytest.raises(StorageError, match="the index was built again meanwhile"):
        journal.append([put("d")])
    assert [one.change.item_id for one in rebuilt.since(0)] == ["c"]
    rebuilt.close()
