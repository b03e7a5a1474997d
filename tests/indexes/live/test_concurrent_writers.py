"""Writers of the same items at the same time: the commit decides which of them creates an item, on any machine."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest

from indexes.index import Index
from indexes.journal.change import Change, JournalEntry
from tests.indexes.changes import copied, made, placed
from tests.indexes.fakes import FakeShop, ids

WRITERS = 16


@pytest.fixture(params=["sqlite", "postgres"])
def replicas(request: pytest.FixtureRequest, shop: FakeShop, tmp_path: Path) -> Iterator[list[Index]]:
    """Open an index twice, as two processes do, with its changes in a file or on a server."""
    if request.param == "sqlite":
        folder = copied(shop, tmp_path)
    else:
        folder = placed(shop, tmp_path, journal=request.getfixturevalue("postgres").url())
    opened = [Index.open(folder), Index.open(folder)]
    yield opened
    for index in opened:
        index.close()


def at_once(replicas: list[Index], changes: list[list[Change]]) -> list[list[bool]]:
    """Apply every element of `changes` in a thread of its own, and return what `Index.apply` returned."""
    start = Barrier(len(changes))

    def apply(number: int) -> list[bool]:
        start.wait()
        return replicas[number % len(replicas)].apply(changes[number])

    with ThreadPoolExecutor(len(changes)) as writers:
        return list(writers.map(apply, range(len(changes))))


def test_exactly_one_of_many_writers_creates_an_item(replicas: list[Index]) -> None:
    for round in range(3):
        existed = at_once(replicas, [[made(f"new-{round}", n)] for n in range(WRITERS)])
        assert sorted(existed) == [[False], *[[True]] * (WRITERS - 1)]


def test_exactly_one_of_many_writers_deletes_an_item(replicas: list[Index]) -> None:
    for item_id in ids()[:2]:
        existed = at_once(replicas, [[Change(item_id)] for _ in range(WRITERS)])
        assert sorted(existed) == [*[[False]] * (WRITERS - 1), [True]]


def test_every_deletion_of_an_item_belongs_to_one_addition(replicas: list[Index]) -> None:
    """After each creation comes one successful deletion at most, in whatever order the writers commit."""
    changes = [[made("new", n)] if n % 2 else [Change("new")] for n in range(WRITERS)]
    existed = at_once(replicas, changes)
    created = sum(not told for [told], [change] in zip(existed, changes, strict=True) if change.item)
    deleted = sum(told for [told], [change] in zip(existed, changes, strict=True) if not change.item)
    replicas[0].refresh()
    assert created - deleted == ("new" in replicas[0].snapshot)


def test_a_writer_sees_its_own_earlier_changes(replicas: list[Index]) -> None:
    batch = [made("new", 1), made("new", 2), Change("new"), Change("new"), made("new", 3), Change("cot")]
    assert replicas[0].apply(batch) == [False, True, True, False, False, True]
    assert replicas[1].apply(batch) == [True, True, True, False, False, False]


def test_writers_that_share_a_commit_see_each_other(replicas: list[Index]) -> None:
    index = replicas[0]
    begun, go_on = Event(), Event()

    def wait(recorded: list[JournalEntry]) -> None:
        begun.set()
        go_on.wait(600)
        index.refresh()

    with ThreadPoolExecutor(4) as writers:
        leader = writers.submit(index.journal.append, [made("first", 1)], wait)
        begun.wait(600)
        told = []
        for number, change in enumerate((made("new", 1), Change("new"), made("new", 2))):
            told.append(writers.submit(index.apply, [change]))
            while index.journal.waiting <= number:
                pass
        go_on.set()
        leader.result()
        assert [one.result() for one in told] == [[False], [True], [False]]


def test_new_items_stay_known_after_compaction_by_another_replica(replicas: list[Index]) -> None:
    one, other = replicas
    assert one.apply([made("new", 1)]) == [False]
    one.compact()
    one.compact()
    assert other.apply([made("new", 2), Change("cot")]) == [True, True]
