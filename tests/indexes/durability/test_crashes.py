"""SIGKILL at random moments: an index loses no acknowledged change, shows no partial change, and opens again.

A child process works on a copy of the shop's index. Through a pipe, it reports each operation that it begins, with the
number of acknowledged steps. It is killed at a random moment during the operation reported last. Afterwards, the index
must contain the acknowledged changes, with or without the batch that was being applied, but never a part of the batch.
"""

import itertools
import multiprocessing
import os
import random
import shutil
import signal
import struct
import time
from collections import Counter
from collections.abc import Callable
from enum import IntEnum
from multiprocessing.connection import Connection
from pathlib import Path
from typing import BinaryIO

import pytest

from indexes.admin.backup import snapshot
from indexes.admin.inspection import verify
from indexes.builder.build import build
from indexes.config import BuildConfig, SnapshotConfig, VerifyConfig
from indexes.index import Index
from indexes.journal.change import Change
from indexes.storage.layout import generations
from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared_data import Prepared
from tests.indexes.changes import Expected, copied, made, placed
from tests.indexes.fakes import FakeEncoder, FakeShop, ids
from tests.indexes.postgres_server import Server

CLEAN = multiprocessing.get_context("forkserver")
"""Fork server without threads that has already imported this module, because starting Python takes too long."""

CLEAN.set_forkserver_preload([__name__])


class Work(IntEnum):
    """Operation of a child process."""

    OPENING = 0
    APPLYING = 1
    COMPACTING = 2
    COPYING = 3
    BUILDING = 4
    ADDING = 5
    REMOVING = 6


def stream(seed: int) -> list[Change]:
    """Return the batch of changes of step `seed`.

    The batches are known in advance, so that the child process only has to report the number of acknowledged steps.
    """
    rng = random.Random(seed)
    names = [*ids(), *(f"new-{n}" for n in range(12))]
    return [
        Change(item_id) if rng.random() < 0.3 else made(item_id, rng.randrange(30))
        for item_id in rng.sample(names, rng.randint(1, 4))
    ]


STREAM = [stream(seed) for seed in range(600)]


def change(writer: Connection, folder: Path, start: int, compact_every: int) -> None:
    """Apply the batches of `STREAM` from step `start` on until killed."""
    tell(writer, Work.OPENING, start)
    index = Index.open(folder)
    step = start
    while True:
        tell(writer, Work.APPLYING, step)
        index.apply(STREAM[step % len(STREAM)])
        step += 1
        if compact_every and step % compact_every == 0:
            tell(writer, Work.COMPACTING, step)
            index.compact()


def snapshots(writer: Connection, folder: Path, start: int) -> None:
    """Apply the batches of `STREAM` from step `start` on until killed, and back up the index after each step."""
    tell(writer, Work.OPENING, start)
    index = Index.open(folder)
    for step in itertools.count(start):
        tell(writer, Work.APPLYING, step)
        index.apply(STREAM[step % len(STREAM)])
        if step % 3 == 0:
            tell(writer, Work.COMPACTING, step + 1)
            index.compact()
        tell(writer, Work.COPYING, step + 1)
        snapshot(SnapshotConfig(index=folder, out=folder.parent / f"snapshot-{step + 1}"))


def builds(writer: Connection, config: BuildConfig) -> None:
    """Build the index repeatedly until killed."""
    parents = Checkpoint.open(config.checkpoint), Prepared.open(config.prepared)
    for count in itertools.count():
        tell(writer, Work.BUILDING, count)
        build(config, FakeEncoder(), *parents)


TOLD = struct.Struct("<BId")


def tell(writer: Connection, work: Work, done: int) -> None:
    """Report the operation that begins, the number of acknowledged steps, and the time, in one atomic write."""
    os.write(writer.fileno(), TOLD.pack(work, done, time.monotonic()))


class Killer:
    """Killer of child processes, which waits for an operation to begin rather than for a fixed time."""

    def __init__(self, seed: int) -> None:
        self.amid: Counter[Work] = Counter()
        """Number of kills during each operation."""
        self._random = random.Random(seed)
        self._took: dict[Work, list[float]] = {}
        self._last: tuple[int, int, float]

    def kill(self, amid: Work, times: int, run: Callable[..., None], *asked: object) -> int:
        """Call `run` in a process, and kill it soon after it begins the operation `amid` for the `times`-th time.

        The delay before the kill is a random fraction of an earlier duration of this operation, so that the kill falls
        within the operation on a machine of any speed. Return the number of acknowledged steps.
        """
        reader, writer = CLEAN.Pipe(duplex=False)
        child = CLEAN.Process(target=run, args=(writer, *asked))
        child.start()
        writer.close()
        with os.fdopen(os.dup(reader.fileno()), "rb") as pipe:
            begun = self._await(pipe, amid, times)
            part = self._random.random() * self._random.choice(self._took.get(amid, [0.0]))
            time.sleep(max(0.0, begun + part - time.monotonic()))
            child.kill()
            child.join()
            rest = pipe.read()
        reader.close()
        assert child.exitcode == -signal.SIGKILL, "the child process failed on its own"
        work, done, _ = self._last = TOLD.unpack(rest[-TOLD.size :]) if rest else self._last
        self.amid[Work(work)] += 1
        return int(done)

    def _await(self, pipe: BinaryIO, amid: Work, times: int) -> float:
        """Read reports until the operation `amid` has begun for the `times`-th time, and return when it began.

        Also record how long each operation takes.
        """
        before = None
        while times:
            told = pipe.read(TOLD.size)
            assert told, "the child process failed on its own"
            self._last = TOLD.unpack(told)
            if before is not None:
                self._took.setdefault(Work(before[0]), []).append(self._last[2] - before[2])
            before = self._last
            times -= before[0] == amid
        return self._last[2]


class Campaign:
    """Index folder whose processes are killed repeatedly, with its expected contents."""

    def __init__(self, shop: FakeShop, folder: Path, seed: int, journal: str | None = None) -> None:
        self.folder = copied(shop, folder) if journal is None else placed(shop, folder, journal=journal)
        self.expected = Expected(shop)
        self.killer = Killer(seed)
        self.step = 0

    def kill(self, amid: Work, times: int, run: Callable[..., None], *asked: object) -> None:
        """Let `run` work on the index until it is killed, then check the index."""
        last = self.killer.kill(amid, times, run, self.folder, self.step, *asked)
        for step in range(self.step, last):
            self.expected.apply(*STREAM[step % len(STREAM)])
        self.step = last
        index = Index.open(self.folder)
        try:
            try:
                self.expected.check(index)
            except AssertionError:
                # The batch being applied was durable, but not yet acknowledged.
                self.expected.apply(*STREAM[self.step % len(STREAM)])
                self.step += 1
                self.expected.check(index)
        finally:
            index.close()


def run_changes(shop: FakeShop, folder: Path, kills: int, postgres: Server | None = None) -> int:
    """Kill a process that changes an index, at least `kills` times and until every kind of operation was hit.

    If the changes are stored in `postgres`, the server is also killed and restarted once every ten kills. Return the
    number of completed steps.
    """
    rng = random.Random(kills)
    campaign = Campaign(shop, folder, kills, postgres.url() if postgres else None)
    kinds = (Work.APPLYING, Work.COMPACTING, Work.APPLYING, Work.OPENING)
    for kill in itertools.count():
        if kill >= kills and set(kinds) == set(campaign.killer.amid):
            break
        if postgres and kill % 10 == 5:
            postgres.stop(signal.SIGQUIT)
            postgres.start()
        match kinds[kill % len(kinds)]:
            case Work.OPENING:
                campaign.kill(Work.OPENING, 1, change, 0)
            case Work.APPLYING:
                campaign.kill(Work.APPLYING, rng.randint(1, 12), change, rng.choice([0, 1, 2, 5]))
            case Work.COMPACTING:
                campaign.kill(Work.COMPACTING, rng.randint(1, 3), change, rng.choice([1, 2, 5]))
    assert "is intact" in verify(VerifyConfig(index=campaign.folder))
    # The next compaction removes the remains of the last kill.
    index = Index.open(campaign.folder)
    index.compact()
    campaign.expected.check(index)
    index.close()
    assert len(generations(campaign.folder)) == 2
    return campaign.step


def test_loses_no_acknowledged_change_after_30_kills(shop: FakeShop, tmp_path: Path) -> None:
    assert run_changes(shop, tmp_path, kills=30) > 30


@pytest.mark.soak
def test_loses_no_acknowledged_change_after_800_kills(shop: FakeShop, tmp_path: Path) -> None:
    assert run_changes(shop, tmp_path, kills=800) > 800


def test_loses_no_acknowledged_change_on_postgres_after_12_kills(
    shop: FakeShop, tmp_path: Path, postgres: Server
) -> None:
    assert run_changes(shop, tmp_path, kills=12, postgres=postgres) > 12


@pytest.mark.soak
def test_loses_no_acknowledged_change_on_postgres_after_400_kills(
    shop: FakeShop, tmp_path: Path, postgres: Server
) -> None:
    assert run_changes(shop, tmp_path, kills=400, postgres=postgres) > 400


def run_snapshots(shop: FakeShop, folder: Path, kills: int) -> int:
    """Kill a process that backs up an index, at least `kills` times and until every kind of operation was hit.

    Return the number of complete backups.
    """
    rng = random.Random(kills)
    campaign = Campaign(shop, folder, kills)
    kinds = (Work.COPYING, Work.COMPACTING, Work.COPYING, Work.APPLYING)
    whole = 0
    for kill in itertools.count():
        if kill >= kills and set(kinds) <= set(campaign.killer.amid):
            break
        before = campaign.step
        campaign.kill(kinds[kill % len(kinds)], rng.randint(1, 3), snapshots)
        copies = {int(path.name.rpartition("-")[2]): path for path in folder.glob("snapshot-*")}
        whole += len(copies)
        for step, path in sorted(copies.items())[-2:]:
            assert before < step <= campaign.step
            expected = Expected(shop)
            for earlier in range(step):
                expected.apply(*STREAM[earlier % len(STREAM)])
            copy = Index.open(path)
            expected.check(copy)
            copy.close()
        for remains in [*copies.values(), *folder.glob(".snapshot-*")]:
            shutil.rmtree(remains)
    return whole


def test_16_kills_during_backups_leave_complete_backups_or_none(shop: FakeShop, tmp_path: Path) -> None:
    assert run_snapshots(shop, tmp_path, kills=16) > 8


@pytest.mark.soak
def test_200_kills_during_backups_leave_complete_backups_or_none(shop: FakeShop, tmp_path: Path) -> None:
    assert run_snapshots(shop, tmp_path, kills=200) > 100


def run_builds(shop: FakeShop, folder: Path, kills: int) -> int:
    """Kill a process that builds an index, at least `kills` times and until one of the kills left no index.

    Return the number of finished builds.
    """
    rng = random.Random(kills)
    killer = Killer(kills)
    out = folder / "index"
    config = BuildConfig(checkpoint=shop.checkpoint, prepared=shop.prepared, out=out)
    expected = Expected(shop)
    finished = all_finished = without = 0
    for kill in itertools.count():
        if kill >= kills and without:
            break
        if kill % 10 == 0:
            shutil.rmtree(out, ignore_errors=True)
            finished = 0
        last = killer.kill(Work.BUILDING, rng.randint(1, 3) if kill % 10 else 1, builds, config)
        finished, all_finished = finished + last, all_finished + last
        if generations(out):
            index = Index.open(out, shop.checkpoint)
            expected.check(index)
            index.close()
        else:
            without += 1
            assert finished == 0
    return all_finished


def test_16_kills_during_builds_leave_complete_index_or_none(shop: FakeShop, tmp_path: Path) -> None:
    assert run_builds(shop, tmp_path, kills=16) > 8


@pytest.mark.soak
def test_200_kills_during_builds_leave_complete_index_or_none(shop: FakeShop, tmp_path: Path) -> None:
    assert run_builds(shop, tmp_path, kills=200) > 100
