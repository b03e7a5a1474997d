"""Changes become durable in order, share commits, and are read back unchanged, from a file and from a server."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event, Lock

import numpy as np
import pytest
from numpy import ndarray
from sqlalchemy import text

from indexes.journal.change import Change, JournalEntry
from indexes.journal.journal import Journal
from indexes.journal.postgres_store import PostgresStore
from indexes.journal.sqlite_store import SqliteStore
from indexes.journal.store import Store, last_sequence
from model.errors import ArtifactError, MismatchError, StorageError
from model.records import Item

SHAPE = (3, 2, 4)


def item(item_id: str, title: str = "Cup") -> Item:
    return Item(item_id, title, f"{title}.", ("Kitchen", "Weiß"), f"{title}. Kitchen", "cup.png")


def vectors(seed: int) -> ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float16)


def put(item_id: str, seed: int = 0) -> Change:
    return Change.put(item(item_id), vectors(seed), f"picture {seed}".encode())


def opened(store: Store, lineage: str = "a" * 64, start: int = 0) -> Journal:
    return Journal(store, lineage, start, SHAPE)


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Return a new store of each type."""
    if request.param == "sqlite":
        return SqliteStore(tmp_path)
    store = PostgresStore(request.getfixturevalue("postgres").url())
    store.prepare()
    return store


@pytest.fixture
def journal(store: Store) -> Iterator[Journal]:
    journal = opened(store)
    yield journal
    journal.close()


def test_reads_changes_unchanged_after_reopening(journal: Journal, store: Store) -> None:
    journal.append([put("cup", 1), Change("mug")])
    journal.append([put("tasse-é", 2)])
    journal.close()
    again = opened(store)
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


def test_append_returns_what_is_read_back(journal: Journal) -> None:
    told = journal.append([put("cup", 1), put("mug", 2), Change("cup")])
    read = journal.since(0)
    assert [(one.sequence, one.change.item, one.change.picture_sha256) for one in told] == [
        (one.sequence, one.change.item, one.change.picture_sha256) for one in read
    ]


def test_concurrent_writers_share_a_commit(journal: Journal) -> None:
    journal.append([put("first")])
    published: list[list[JournalEntry]] = []
    begun, go_on = Event(), Event()

    def publish(recorded: list[JournalEntry]) -> None:
        if not published:
            begun.set()
            go_on.wait(600)
        published.append(recorded)

    with ThreadPoolExecutor(9) as writers:
        leader = writers.submit(journal.append, [put("leader")], publish)
        begun.wait(600)
        others = [writers.submit(journal.append, [put(f"other-{n}")], publish) for n in range(8)]
        while journal.waiting < 8:
            pass
        go_on.set()
        sequences = sorted(one.sequence for future in [leader, *others] for one in future.result())
    assert sequences == list(range(2, 11))
    assert [len(together) for together in published] == [1, 8]
    assert [one.sequence for together in published for one in together] == list(range(2, 11))


def test_unexpected_error_reaches_all_writers_that_share_the_commit(journal: Journal) -> None:
    begun, go_on = Event(), Event()

    def publish(recorded: list[JournalEntry]) -> None:
        begun.set()
        go_on.wait(600)

    def fail(sequence: int, item_ids: Sequence[str]) -> list[bool]:
        raise MemoryError

    with ThreadPoolExecutor(3) as writers:
        first = writers.submit(journal.append, [put("first")], publish)
        begun.wait(600)
        others = [writers.submit(journal.append, [put(f"other-{n}")], existing=fail) for n in range(2)]
        while journal.waiting < 2:
            pass
        go_on.set()
        assert [one.sequence for one in first.result()] == [1]
        errors = sorted((one.exception() for one in others), key=lambda error: str(type(error)))
    assert [type(error) for error in errors] == [MemoryError, StorageError]
    assert [one.change.item_id for one in journal.since(0)] == ["first"]


def test_writers_of_two_journals_never_get_the_same_sequence_number(journal: Journal, store: Store) -> None:
    other, start, lock = opened(store), Barrier(8), Lock()
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


def test_never_reuses_a_sequence_number(journal: Journal, store: Store) -> None:
    journal.append([put("a"), put("b"), put("c")])
    journal.trim(3)
    assert (journal.newest(), journal.since(0), last_sequence(store)) == (0, [], 3)
    assert journal.append([put("d")])[0].sequence == 4


def test_new_journal_continues_after_sequence_number_of_generation(store: Store) -> None:
    journal = opened(store, start=41)
    assert journal.append([put("a")])[0].sequence == 42
    journal.close()


@pytest.mark.parametrize("column", ["item_id", "item", "vectors"])
def test_reports_tampered_change_by_number(journal: Journal, store: Store, column: str) -> None:
    journal.append([put("a"), put("b"), put("c")])
    engine = journal.engine()
    assert engine is not None
    with store.writing(engine) as connection:
        old = connection.execute(text(f"SELECT {column} FROM changes WHERE sequence = 2")).scalar_one()
        new = b"x" + old[1:] if isinstance(old, bytes) else old.replace("b", "B", 1)
        connection.execute(text(f"UPDATE changes SET {column} = :new WHERE sequence = 2"), {"new": new})
    with pytest.raises(
        ArtifactError, match=r"is damaged \(change 2 does not match its digest\)\. Restore a backup"
    ):
        journal.since(0)


@pytest.mark.parametrize("sequence", [1, 2, 3])
def test_detects_missing_change(journal: Journal, store: Store, sequence: int) -> None:
    journal.append([put("a"), put("b"), put("c")])
    engine = journal.engine()
    assert engine is not None
    with store.writing(engine) as connection:
        connection.execute(text(f"DELETE FROM changes WHERE sequence = {sequence}"))
    with pytest.raises(ArtifactError, match=r"is damaged \(2 of 3 changes are present\)"):
        journal.since(0)


def test_copy_is_a_sqlite_journal(journal: Journal, tmp_path: Path) -> None:
    journal.append([put(f"item-{n}", n) for n in range(250)])
    journal.trim(7)
    (tmp_path / "copy").mkdir()
    journal.copy(tmp_path / "copy")
    copied = opened(SqliteStore(tmp_path / "copy"))
    found, expected = copied.since(0), journal.since(0)
    assert [one.sequence for one in found] == [*range(8, 251)]
    assert [one.change.item for one in found] == [one.change.item for one in expected]
    assert copied.picture(found[-1]) == b"picture 249"
    assert copied.append([put("next")])[0].sequence == 251
    copied.close()


def test_rejects_changes_to_another_index(journal: Journal, store: Store) -> None:
    journal.append([put("a")])
    journal.close()
    with pytest.raises(MismatchError, match="holds changes to another index"):
        opened(store, lineage="b" * 64).since(0)


def test_discards_changes_when_index_is_rebuilt(journal: Journal, store: Store) -> None:
    journal.append([put("a"), put("b")])
    rebuilt = opened(store, lineage="b" * 64, start=2)
    assert rebuilt.since(0) == []
    assert rebuilt.append([put("c")])[0].sequence == 3
    with pytest.raises(StorageError, match=r"because the index was rebuilt\. Open the index again"):
        journal.append([put("d")])
    assert [one.change.item_id for one in rebuilt.since(0)] == ["c"]
    rebuilt.close()
