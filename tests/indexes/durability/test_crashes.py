"""Killed at any moment, an index loses no acknowledged change, shows none by half, and opens again.

A child process changes, compacts and searches a copy of the shop's index and notes every acknowledgement in a
pipe; it is killed with SIGKILL at a random moment. What opens afterwards must be the acknowledged changes, or these
and the one that was under way, whole.
"""

import itertools
import multiprocessing
import os
import random
import shutil
import signal
import struct
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from indexes.admin.backup import snapshot
from indexes.admin.inspection import verify
from indexes.builder.build import build
from indexes.config import BuildConfig, SnapshotConfig, VerifyConfig
from indexes.index import Index
from indexes.journal.journal import Change
from indexes.storage.layout import generations
from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared import Prepared
from tests.indexes.changes import Expected, copied, made, placed
from tests.indexes.fakes import FakeEncoder, FakeShop, ids
from tests.indexes.postgres_server import Server

CLEAN = multiprocessing.get_context("forkserver")
"""Forks a process that has loaded all this and has no threads: starting Python takes longer than what is tested."""

CLEAN.set_forkserver_preload([__name__])

LONGEST = 0.25
"""Seconds until the kill, at most: some hundred changes, some ten compactions."""


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
    index = Index.open(folder)
    step = start
    while True:
        index.apply(STREAM[step % len(STREAM)])
        step += 1
        acknowledge(writer, step)
        if compact_every and step % compact_every == 0:
            index.compact()


def snapshots(writer: Connection, folder: Path, start: int) -> None:
    """Apply the stream from step `start` on and copy the index after each step, for ever."""
    index = Index.open(folder)
    for step in itertools.count(start):
        index.apply(STREAM[step % len(STREAM)])
        acknowledge(writer, step + 1)
        if step % 3 == 0:
            index.compact()
        snapshot(SnapshotConfig(index=folder, out=folder.parent / f"snapshot-{step + 1}"))


def builds(writer: Connection, config: BuildConfig) -> None:
    """Build again and again, for ever."""
    parents = Checkpoint.open(config.checkpoint), Prepared.open(config.prepared)
    for count in itertools.count(1):
        build(config, FakeEncoder(), *parents)
        acknowledge(writer, count)


def acknowledge(writer: Connection, step: int) -> None:
    """Tell the parent, in one write: all of it or nothing."""
    os.write(writer.fileno(), struct.pack("<I", step))


def killed(after: float, run: Callable[..., None], *asked: object) -> int:
    """Run in a process that is killed `after` seconds from its start; the last number it acknowledged."""
    reader, writer = CLEAN.Pipe(duplex=False)
    child = CLEAN.Process(target=run, args=(writer, *asked))
    child.start()
    writer.close()
    child.join(after)
    child.kill()
    child.join()
    with os.fdopen(os.dup(reader.fileno()), "rb") as pipe:
        acknowledged = pipe.read()
    reader.close()
    assert child.exitcode == -signal.SIGKILL, "the child failed of itself"
    return struct.unpack("<I", acknowledged[-4:])[0] if acknowledged else 0


class Campaign:
    """One folder, killed again and again, and what it must hold."""

    def __init__(self, shop: FakeShop, folder: Path, journal: str | None = None) -> None:
        self.folder = copied(shop, folder) if journal is None else placed(shop, folder, journal=journal)
        self.expected = Expected(shop)
        self.step = 0

    def kill(self, after: float, run: Callable[..., None], *asked: object) -> None:
        """Have `run` change it until killed, then check."""
        last = killed(after, run, self.folder, self.step, *asked)
        for step in range(self.step, max(last, self.step)):
            self.expected.apply(*STREAM[step % len(STREAM)])
        self.step = max(last, self.step)
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
    """With a server for the changes, that is killed and started again, too, every ten kills."""
    rng = random.Random(kills)
    campaign = Campaign(shop, folder, postgres.url() if postgres else None)
    for kill in range(kills):
        if postgres and kill % 10 == 5:
            postgres.stop(signal.SIGQUIT)
            postgres.start()
        campaign.kill(rng.uniform(0, LONGEST), change, rng.choice([0, 1, 2, 5]))
    assert "is whole" in verify(VerifyConfig(index=campaign.folder))
    # What the last kill left behind goes with the next compaction.
    index = Index.open(campaign.folder)
    index.compact()
    campaign.expected.check(index)
    index.close()
    assert len(generations(campaign.folder)) == 2
    return campaign.step


def test_killed_100_times_amid_changes_and_compactions_it_loses_nothing(
    shop: FakeShop, tmp_path: Path
) -> None:
    assert run_changes(shop, tmp_path, kills=100) > 100  # or nothing was under way


@pytest.mark.soak
def test_killed_800_times_amid_changes_and_compactions_it_loses_nothing(
    shop: FakeShop, tmp_path: Path
) -> None:
    assert run_changes(shop, tmp_path, kills=800) > 800


def test_killed_amid_changes_on_postgres_it_loses_nothing(
    shop: FakeShop, tmp_path: Path, postgres: Server
) -> None:
    assert run_changes(shop, tmp_path, kills=20, postgres=postgres) > 20


@pytest.mark.soak
def test_killed_400_times_amid_changes_on_postgres_it_loses_nothing(
    shop: FakeShop, tmp_path: Path, postgres: Server
) -> None:
    assert run_changes(shop, tmp_path, kills=400, postgres=postgres) > 400


def run_snapshots(shop: FakeShop, folder: Path, kills: int) -> int:
    rng = random.Random(kills)
    campaign = Campaign(shop, folder)
    whole = 0
    for _ in range(kills):
        before = campaign.step
        campaign.kill(rng.uniform(0, LONGEST), snapshots)
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


def test_killed_50_times_amid_snapshots_there_is_a_whole_one_or_none(shop: FakeShop, tmp_path: Path) -> None:
    assert run_snapshots(shop, tmp_path, kills=50) > 50 / 10  # or nothing was ever copied


@pytest.mark.soak
def test_killed_200_times_amid_snapshots_there_is_a_whole_one_or_none(shop: FakeShop, tmp_path: Path) -> None:
    assert run_snapshots(shop, tmp_path, kills=200) > 200 / 10


def run_builds(shop: FakeShop, folder: Path, kills: int) -> int:
    rng = random.Random(kills)
    out = folder / "index"
    config = BuildConfig(checkpoint=shop.checkpoint, prepared=shop.prepared, out=out)
    expected = Expected(shop)
    finished = all_finished = 0
    for n in range(kills):
        if n % 10 == 0:
            shutil.rmtree(out, ignore_errors=True)
            finished = 0
        last = killed(rng.uniform(0, LONGEST), builds, config)
        finished, all_finished = finished + last, all_finished + last
        if generations(out):
            index = Index.open(out, shop.checkpoint)
            expected.check(index)
            index.close()
        else:
            assert finished == 0
    return all_finished


def test_killed_50_times_amid_builds_there_is_a_whole_index_or_none(shop: FakeShop, tmp_path: Path) -> None:
    assert run_builds(shop, tmp_path, kills=50) > 0  # or nothing was ever finished


@pytest.mark.soak
def test_killed_200_times_amid_builds_there_is_a_whole_index_or_none(shop: FakeShop, tmp_path: Path) -> None:
    assert run_builds(shop, tmp_path, kills=200) > 0
