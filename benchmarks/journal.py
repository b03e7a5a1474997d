"""Durable changes by many writers at once: `python -m benchmarks.journal [--quick] [--sync-ms 5]`.

Threads put items in, one by one, each waiting until its item is durable: through the journal of an index, where
those that wait share a commit, and beside it with one commit, and so one sync, for every change: the same journal,
the writers taking turns. A change has 10 relations x 3 views x 512 components in half precision, and no picture.

What sharing gains depends on how long a sync takes, from 0.05 ms (a virtual disk that answers from memory) to some
10 ms (a hard disk). `--sync-ms` puts a wait of that length in the place of every sync; Linux with a C compiler only.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from benchmarks.rig.measurement import Timings, interleave
from benchmarks.rig.results import conclude, show
from indexes.journal.journal import Change, Journal
from indexes.journal.sqlite_store import SqliteStore
from model.records import Item
from tests.disk.disk import Watched, environment

SHAPE = (3, 10, 512)
WRITERS = (1, 8, 64)
WATCHED = "RCML_WATCHED"


def changes(count: int) -> list[Change]:
    """Items put in, of one vector."""
    vectors = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float16)
    return [
        Change.put(
            Item(f"item-{n}", f"Item {n}", "", ("Kitchen",), f"Item {n}. Kitchen", "new.png"), vectors, b""
        )
        for n in range(count)
    ]


class Side:
    """A journal of its own, and a way to write to it."""

    def __init__(self, folder: Path, shared: bool) -> None:
        folder.mkdir()
        self.journal = Journal(SqliteStore(folder), "benchmark", 0, SHAPE)
        self._turn = nullcontext() if shared else Lock()

    def write(self, changes: list[Change]) -> None:
        """Write one after the other, each once the one before is durable."""
        for change in changes:
            with self._turn:
                self.journal.append([change])

    def run(self, shares: list[list[Change]]) -> None:
        """Each writer has a share."""
        with ThreadPoolExecutor(len(shares)) as writers:
            list(writers.map(self.write, shares))


def measure(folder: Path, made: list[Change], writers: int, rounds: int) -> Timings:
    """Both sides, in turn."""
    folder.mkdir()
    sides = {
        "journal": Side(folder / "journal", shared=True),
        "a sync each": Side(folder / "alone", shared=False),
    }
    shares = [made[place::writers] for place in range(writers)]
    calls: Mapping[str, Callable[[], object]] = {
        name: partial(side.run, shares) for name, side in sides.items()
    }
    try:
        return interleave(calls, rounds)
    finally:
        for side in sides.values():
            side.journal.close()


def main() -> None:
    """Measure, show, conclude."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer changes and rounds")
    parser.add_argument("--sync-ms", type=float, help="wait so long instead of every sync")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if asked.sync_ms is None:
            report(place, asked.quick, None)
        elif WATCHED not in os.environ:
            command = [sys.executable, "-m", "benchmarks.journal", *sys.argv[1:]]
            sys.exit(subprocess.run(command, env={**environment(place), WATCHED: "1"}).returncode)
        else:
            with Watched(place).slow(asked.sync_ms / 1e3):
                report(place, asked.quick, asked.sync_ms)


def report(folder: Path, quick: bool, sync_ms: float | None) -> None:
    """Measure with ever more writers, show, conclude."""
    rounds = 3 if quick else 9
    made = changes(256 if quick else 1024)
    rows, figures = [], []
    for writers in WRITERS:
        own = made[: len(made) // (8 if writers == 1 else 1)]
        timings = measure(folder / f"{writers}", own, writers, rounds)
        rate, alone = (len(own) / timings.median(side) for side in ("journal", "a sync each"))
        ratio = timings.ratio("a sync each", "journal")
        rows.append((f"{writers}", f"{rate:,.0f}", f"{alone:,.0f}", f"{ratio:.1f}"))
        figures.append(
            {
                "writers": writers,
                "per_s": round(rate),
                "sync_each_per_s": round(alone),
                "ratio": round(ratio, 2),
            }
        )
    title = "Durable changes a second" + (f", a sync taking {sync_ms:g} ms" if sync_ms else "")
    show(title, ("writers", "journal", "a sync each", "ratio"), rows)
    concluded: dict[str, Any] = {"sync_ms": sync_ms, "rows": figures}
    conclude(concluded)


if __name__ == "__main__":
    main()
