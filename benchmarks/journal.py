"""Durable changes by concurrent writers: `python -m benchmarks.journal [--quick] [--sync-ms 5]`.

Threads add items one at a time, and each thread waits until its item is durable. In the journal of an index, changes
that wait at the same time share a commit. The reference is the same journal with one commit, and so one fsync, per
change: the writers take turns. A change has 10 relations x 3 views x 512 components in half precision, and no picture.

The gain from sharing depends on how long an fsync takes: from 0.05 ms (a virtual disk that responds from memory) to
about 10 ms (a hard disk). `--sync-ms` replaces every fsync by a wait; this requires Linux and a C compiler.
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
from indexes.journal.change import Change
from indexes.journal.journal import Journal
from indexes.journal.sqlite_store import SqliteStore
from model.records import Item
from tests.disk.disk import Watched, environment

SHAPE = (3, 10, 512)
WRITERS = (1, 8, 64)
WATCHED = "RCML_WATCHED"


def changes(count: int) -> list[Change]:
    """Create changes that add `count` items, all with the same vectors."""
    vectors = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float16)
    return [
        Change.put(
            Item(f"item-{n}", f"Item {n}", "", ("Kitchen",), f"Item {n}. Kitchen", "new.png"), vectors, b""
        )
        for n in range(count)
    ]


class Side:
    """Journal in its own folder that commits concurrent changes together if `shared`, and one by one otherwise."""

    def __init__(self, folder: Path, shared: bool) -> None:
        folder.mkdir()
        self.journal = Journal(SqliteStore(folder), "benchmark", 0, SHAPE)
        self._turn = nullcontext() if shared else Lock()

    def write(self, changes: list[Change]) -> None:
        """Write the changes one at a time, each after the previous one is durable."""
        for change in changes:
            with self._turn:
                self.journal.append([change])

    def run(self, shares: list[list[Change]]) -> None:
        """Write several lists of changes in parallel, with one thread per list."""
        with ThreadPoolExecutor(len(shares)) as writers:
            list(writers.map(self.write, shares))


def measure(folder: Path, made: list[Change], writers: int, rounds: int) -> Timings:
    """Time both variants in interleaved rounds."""
    folder.mkdir()
    sides = {
        "journal": Side(folder / "journal", shared=True),
        "one fsync per change": Side(folder / "alone", shared=False),
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
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="use fewer changes and rounds")
    parser.add_argument(
        "--sync-ms", type=float, help="replace every fsync by a wait of this many milliseconds"
    )
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
    """Measure with increasing numbers of writers and print the results."""
    rounds = 3 if quick else 9
    made = changes(256 if quick else 1024)
    rows, figures = [], []
    for writers in WRITERS:
        own = made[: len(made) // (8 if writers == 1 else 1)]
        timings = measure(folder / f"{writers}", own, writers, rounds)
        rate, alone = (len(own) / timings.median(side) for side in ("journal", "one fsync per change"))
        ratio = timings.ratio("one fsync per change", "journal")
        rows.append((f"{writers}", f"{rate:,.0f}", f"{alone:,.0f}", f"{ratio:.1f}"))
        figures.append(
            {
                "writers": writers,
                "per_s": round(rate),
                "sync_each_per_s": round(alone),
                "ratio": round(ratio, 2),
            }
        )
    title = "Durable changes per second" + (f", {sync_ms:g} ms per fsync" if sync_ms else "")
    show(title, ("writers", "journal", "one fsync per change", "ratio"), rows)
    concluded: dict[str, Any] = {"sync_ms": sync_ms, "rows": figures}
    conclude(concluded)


if __name__ == "__main__":
    main()
