"""Tests for the token buckets that workers share."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from service.middleware.rate_limit import RateLimit
from service.shared.bucket_table import SETS, WAYS, BucketTable


def test_bucket_keeps_its_value_in_all_tables(tmp_path: Path) -> None:
    one, other = BucketTable.create(tmp_path / "buckets"), BucketTable(tmp_path / "buckets")
    with one.held("10.0.0.1") as bucket:
        assert bucket.full_at == 0
        bucket.full_at = 12.5
    with other.held("10.0.0.1") as bucket:
        assert bucket.full_at == 12.5
    with other.held("10.0.0.2") as bucket:
        assert bucket.full_at == 0


def test_many_callers_take_no_more_memory_and_the_fullest_bucket_goes_first(tmp_path: Path) -> None:
    table = BucketTable.create(tmp_path / "buckets")
    size = (tmp_path / "buckets").stat().st_size
    for number in range(3 * SETS * WAYS):
        with table.held(str(number)) as bucket:
            bucket.full_at = float(number + 1)
    assert (tmp_path / "buckets").stat().st_size == size
    latest = range(3 * SETS * WAYS - SETS, 3 * SETS * WAYS)
    kept = 0
    for number in latest:
        with table.held(str(number)) as bucket:
            kept += bucket.full_at == number + 1
            bucket.full_at = bucket.full_at or 0.5
    assert kept == len(latest)


def take(path: Path, times: int, answers: "multiprocessing.SimpleQueue[int]") -> None:
    limit = RateLimit(1.0, 50, lambda: 1000.0, BucketTable(path))
    answers.put(sum(limit.wait("shop") == 0 for _ in range(times)))


def test_processes_together_get_exactly_one_burst(tmp_path: Path) -> None:
    BucketTable.create(tmp_path / "buckets")
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.SimpleQueue()
    processes = [spawn.Process(target=take, args=(tmp_path / "buckets", 40, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sum(answers.get() for _ in processes) == 50


def hold(path: Path) -> None:
    with BucketTable(path).held("shop") as bucket:
        bucket.full_at = 1.0
        os.kill(os.getpid(), signal.SIGKILL)


def test_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    table = BucketTable.create(tmp_path / "buckets")
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(tmp_path / "buckets",))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with table.held("shop") as bucket:
        assert bucket.full_at == 0


@pytest.mark.parametrize("shared", [False, True])
def test_limit_is_the_same_in_memory_and_in_a_table(tmp_path: Path, shared: bool) -> None:
    now = [1000.0]
    table = BucketTable.create(tmp_path / "buckets") if shared else None
    limit = RateLimit(2.0, 3, lambda: now[0], table)
    assert [limit.wait("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert limit.wait("b") == 0
    now[0] += 0.5
    limit_left = limit.wait("a")
    assert limit_left == 0
    limit.charge("b", 10)
    assert limit.wait("b") == pytest.approx(3.5)
