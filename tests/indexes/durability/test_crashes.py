"""Killed at any moment, an index loses no acknowledged change, shows none by half, and opens again.

A child process changes, compacts and searches a copy of the shop's index and tells in a pipe what it begins and what
it has acknowledged; it is killed with SIGKILL at a random moment of what it told last. What opens afterwards must be
the acknowledged changes, or these and the one that was under way, whole.
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
from indexes.journal.journal import Change
from indexes.storage.layout import generations
from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared_data import Prepared
from tests.indexes.changes import Expected, copied, made, placed
from tests.indexes.fakes import FakeEncoder, FakeShop, ids
from tests.indexes.postgres_server import Server

CLEAN = multiprocessing.get_context("forkserver")
"""Forks a process that has loaded all this and has no threads: starting Python takes longer than what is tested."""

CLEAN.set_forkserver_preload([__name__])


class Work(IntEnum):
    """What a child may be at."""

    OPENING = 0
    APPLYING = 1
    COMPACTING = 2
    COPYING = 3
    BUILDING = 4
    ADDING = 5
    REMOVING = 6


def stream(seed: int) -> list[Change]:
    """The changes of step `seed`, one batch: known beforehand, so that only a number need be acknowledged."""
    rng = random.Random(seed)
    names = [*ids(), *(f"new-{n}" for n in range(12))]
    return [
        Change(item_id) if rng.random() < 0.3 else made(item_id, rng.randrange(30))
        for item_id in rng.sample(names, rng.randint(1, 4))
    ]


STREAM = [stream(seed) for seed in range(600)]


def change(writer: Connection, folder: Path, start: int, compact_every: int) -> None:
    """Apply the stream from step `start` on, for ever."""
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
    """Apply the stream from step `start` on and copy the index after each step, for ever."""
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
    """Build again and again, for ever."""
    parents = Checkpoint.open(config.checkpoint), Prepared.open(config.prepared)
    for count in itertools.count():
        tell(writer, Work.BUILDING, count)
        build(config, FakeEncoder(), *parents)


TOLD = struct.Struct("<BId")


def tell(writer: Connection, work: Work, done: int) -> None:
    """Say what is begun, how much is acknowledged and when, in one write: all of it or nothing."""
    os.write(writer.fileno(), TOLD.pack(work, done, time.monotonic()))


class Killer:
    """Kills children by what they have reached, never by the time since their start."""

    def __init__(self, seed: int) -> None:
        self.amid: Counter[Work] = Counter()
        """How many died amid what."""
        self._random = random.Random(seed)
        self._took: dict[Work, list[float]] = {}
        self._last: tuple[int, int, float]

    def kill(self, amid: Work, times: int, run: Callable[..., None], *asked: object) -> int:
        """Run in a process, kill it when it has begun such work so many times; returns what it had acknowledged.

        The moment is a random part of what such work took before: it falls within the work on any machine.
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
        assert child.exitcode == -signal.SIGKILL, "the child failed of itself"
        work, done, _ = self._last = TOLD.unpack(rest[-TOLD.size :]) if rest else self._last
        self.amid[Work(work)] += 1
        return int(done)

    def _await(self, pipe: BinaryIO, amid: Work, times: int) -> float:
        """Read until such work has begun so many times, and learn what each kind takes; returns when it began."""
        before = None
        while times:
            told = pipe.read(TOLD.size)
            assert told, "the child failed of itself"
            self._last = TOLD.unpack(told)
            if before is not None:
                self._took.setdefault(Work(before[0]), []).append(self._last[2] - before[2])
            before = self._last
            times -= before[0] == amid
        return self._last[2]


class Campaign:
    """One folder, killed again and again, and what it must hold."""

    def __init__(self, shop: FakeShop, folder: Path, seed: int, journal: str | None = None) -> None:
        self.folder = copied(shop, folder) if journal is None else placed(shop, folder, journal=journal)
        self.expected = Expected(shop)
        self.killer = Killer(seed)
        self.step = 0

    def kill(self, amid: Work, times: int, run: Callable[..., None], *asked: object) -> None:
        """Have `run` change it until killed, then check."""
        last = self.killer.kill(amid, times, run, self.folder, self.step, *asked)
        for step in range(self.step, last):
            self.expected.apply(*STREAM[step % len(STREAM)])
        self.step = last
        index = Index.open(self.folder)
        try:
            try:
                self.expected.check(index)
            except AssertionError:
                # The change under way had become durable, but its writer was not told.
                self.expected.apply(*STREAM[self.step % len(STREAM)])
                self.step += 1
                self.expected.check(index)
        finally:
            index.close()


def run_changes(shop: FakeShop, folder: Path, kills: int, postgres: Server | None = None) -> int:
    """So many kills, and more until each kind of work was met; returns how many changes were acknowledged.

    With a server for the changes, that is killed and started again, too, every ten kills.
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
    assert "is whole" in verify(VerifyConfig(index=campaign.folder))
    # What the last kill left behind goes with the next compaction.
    index = Index.open(campaign.folder)
    index.compact()
    campaign.expected.check(index)
    index.close()
    assert len(generations(campaign.folder)) == 2
    return campaign.step


def test_killed_30_times_amid_changes_and_compactions_it_loses_nothing(
    shop: FakeShop, tmp_path: Path
) -> None:
    assert run_changes(shop, tmp_path, kills=30) > 30


@pytest.mark.soak
def test_killed_800_times_amid_changes_and_compactions_it_loses_nothing(
    shop: FakeShop, tmp_path: Path
) -> None:
    assert run_changes(shop, tmp_path, kills=800) > 800


def test_killed_12_times_amid_changes_on_postgres_it_loses_nothing(
    shop: FakeShop, tmp_path: Path, postgres: Server
) -> None:
    assert run_changes(shop, tmp_path, kills=12, postgres=postgres) > 12


@pytest.mark.soak
def test_killed_400_times_amid_changes_on_postgres_it_loses_nothing(
    shop: FakeShop, tmp_path: Path, postgres: Server
) -> None:
    assert run_changes(shop, tmp_path, kills=400, postgres=postgres) > 400


def run_snapshots(shop: FakeShop, folder: Path, kills: int) -> int:
    """So many kills, and more until each kind of work was met; returns how many whole snapshots there were."""
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


def test_killed_16_times_amid_snapshots_there_is_a_whole_one_or_none(shop: FakeShop, tmp_path: Path) -> None:
    assert run_snapshots(shop, tmp_path, kills=16) > 8


@pytest.mark.soak
def test_killed_200_times_amid_snapshots_there_is_a_whole_one_or_none(shop: FakeShop, tmp_path: Path) -> None:
    assert run_snapshots(shop, tmp_path, kills=200) > 100


def run_builds(shop: FakeShop, folder: Path, kills: int) -> int:
    """So many kills, and more until one left no index; returns how many builds were finished."""
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


def test_killed_16_times_amid_builds_there_is_a_whole_index_or_none(shop: FakeShop, tmp_path: Path) -> None:
    assert run_builds(shop, tmp_path, kills=16) > 8


@pytest.mark.soak
def test_killed_200_times_amid_builds_there_is_a_whole_index_or_none(shop: FakeShop, tmp_path: Path) -> None:
    assert run_builds(shop, tmp_path, kills=200) > 100
