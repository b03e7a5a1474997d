"""Tests for the counters that workers share."""

from pathlib import Path

from service.shared.counters import Counter, SharedCounters


def test_worker_sees_sums_and_writes_only_its_own_cells(tmp_path: Path) -> None:
    parent = SharedCounters.create(tmp_path / "cells", 3)
    first, second = (SharedCounters.open(tmp_path / "cells", number, 3) for number in (0, 1))
    first.set(Counter.CONNECTIONS, 7)
    second.add(Counter.CONNECTIONS, 2)
    second.add(Counter.CONNECTIONS, 3)
    assert [one.total(Counter.CONNECTIONS) for one in (parent, first, second)] == [12, 12, 12]
    assert (first.own(Counter.CONNECTIONS), second.own(Counter.CONNECTIONS)) == (7, 5)
    assert (first.others(Counter.CONNECTIONS), second.others(Counter.CONNECTIONS)) == (5, 7)
    assert all(parent.total(other) == 0 for other in Counter if other is not Counter.CONNECTIONS)


def test_cells_of_an_ended_worker_are_cleared_but_its_commits_go_on(tmp_path: Path) -> None:
    parent = SharedCounters.create(tmp_path / "cells", 2)
    worker = SharedCounters.open(tmp_path / "cells", 1, 2)
    for counter in Counter:
        worker.set(counter, 4)
    parent.forget(1)
    left = {counter for counter in Counter if parent.of(1, counter)}
    assert left == {Counter.COMMITS, Counter.GENERATIONS}
    successor = SharedCounters.open(tmp_path / "cells", 1, 2)
    successor.add(Counter.COMMITS, 1)
    assert parent.total(Counter.COMMITS) == 5


def test_epoch_and_leader_are_read_by_all(tmp_path: Path) -> None:
    parent = SharedCounters.create(tmp_path / "cells", 2)
    first, second = (SharedCounters.open(tmp_path / "cells", number, 2) for number in (0, 1))
    parent.epoch, parent.leader = 3, 1
    assert (first.epoch, second.epoch) == (3, 3)
    assert (first.leads, second.leads) == (False, True)


def test_process_without_others_leads() -> None:
    assert SharedCounters.alone().leads
