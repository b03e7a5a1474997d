"""Tests of the changes that workers share: what one acknowledged, another reads before its next request."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from indexes.index import Index
from indexes.journal.change import Change
from service.engine.shared_changes import SharedChanges
from service.shared.counters import Counter, SharedCounters


class _Index:
    """Index that counts how often the journal is read."""

    def __init__(self) -> None:
        self.reads = 0

    def apply(self, changes: Any) -> list[bool]:
        return [False for _ in changes]

    def read_changes(self) -> None:
        self.reads += 1

    refresh = read_changes


class _CountedCounters(SharedCounters):
    """Counters that count how often they add up the cells of all workers."""

    sums = 0

    def total(self, counter: Counter) -> int:
        self.sums += 1
        return super().total(counter)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    SharedCounters.create(tmp_path / "cells", 3)
    return tmp_path / "cells"


def _worker(path: Path, number: int) -> tuple[SharedChanges, _Index, _CountedCounters]:
    index, counters = _Index(), _CountedCounters.open(path, number, 3)
    return SharedChanges(cast(Index, index), counters), index, counters


CHANGE = Change("item-1")


def test_commit_of_another_worker_is_read_once(path: Path) -> None:
    (one, _, _), (other, index, _) = _worker(path, 0), _worker(path, 2)
    asyncio.run(other.catch_up())
    assert not other.behind
    one.apply([CHANGE])
    assert other.behind
    assert other.behind  # until it has been read
    asyncio.run(other.catch_up())
    assert not other.behind
    assert index.reads == 2


def test_own_commits_need_no_reading(path: Path) -> None:
    (one, index, _), (other, _, _) = _worker(path, 1), _worker(path, 0)
    asyncio.run(one.catch_up())
    for _ in range(3):
        one.apply([CHANGE])
        assert not one.behind
    other.apply([CHANGE])
    assert one.behind
    assert index.reads == 1


def test_generation_of_the_last_worker_is_noticed(path: Path) -> None:
    (_, _, counters), (other, _, _) = _worker(path, 2), _worker(path, 0)
    asyncio.run(other.catch_up())
    assert not other.behind
    counters.add(Counter.GENERATIONS, 1)
    assert other.behind


def test_requests_without_changes_add_up_nothing(path: Path) -> None:
    changes, _, counters = _worker(path, 0)
    asyncio.run(changes.catch_up())
    assert not changes.behind
    before = counters.sums
    assert not any(changes.behind for _ in range(100))
    assert counters.sums == before
