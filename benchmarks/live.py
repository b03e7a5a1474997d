"""Searches in an index while it changes: `python -m benchmarks.live [--quick] [--changes 0]`.

The index has 100,000 items under 10 relations and no precomputed answers. Every search is a scan, as in an index of
this size written by `rcml index build`. With `--kind hnsw` the index has graphs, which take longer to build but make
searches faster.

One thread sends one query after the other, in blocks of a few seconds. In "live" blocks, another thread adds 100 items
per second, each with 30 KB of vectors, and waits until each item is durable. In "quiet" blocks, the index does not
change. Every round has one block of each kind, in random order. Each block searches without a filter and with a price
filter that allows a tenth of the items.

The benchmark also measures how soon a new item becomes visible after its change is acknowledged: to a search in this
process, and to another process. The other process refreshes every 0.2 s, as a server does. `--changes` sets the number
of changes that are applied before the first block.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any, get_args

import numpy as np

from benchmarks.rig.embeddings import DIM
from benchmarks.rig.results import conclude, show
from benchmarks.rig.shop import Shop, relations
from indexes.config import IndexKind
from indexes.index import Index
from indexes.journal.change import Change
from indexes.search.selection import EVERYTHING, Selection
from indexes.storage.filters import Condition
from model.similarity import Similarity, View

REFRESH_INTERVAL_S = 0.2
"""Seconds between two refreshes of the other process."""

SELECTIONS = {"none": EVERYTHING, "10 %": Selection(where={"price": Condition(least=10, most=19)})}


@dataclass
class Writer:
    """Writer that adds items at a steady rate until it is stopped."""

    index: Index
    changes: Iterator[Change]
    per_s: float
    applied: int = 0
    seconds: list[float] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)

    def run(self, stop: Event) -> None:
        """Apply changes until `stop` is set; after every twentieth, measure how soon a search finds the item."""
        due = time.monotonic()
        while not stop.is_set():
            change = next(self.changes)
            started = time.perf_counter()
            self.index.apply([change])
            acknowledged = time.perf_counter()
            self.seconds.append(acknowledged - started)
            self.applied += 1
            if self.applied % 20 == 0:
                self.seen.append(found_after(self.index, change))
            due = max(due + 1 / self.per_s, time.monotonic() - 1)
            stop.wait(max(due - time.monotonic(), 0))


def found_after(index: Index, change: Change) -> float:
    """Return the seconds until a search for the item's own vector finds the item."""
    assert change.vectors is not None
    query = change.vectors[[*View].index(View.AVERAGE), 0].astype(np.float32)
    query /= np.linalg.norm(query)
    started = time.perf_counter()
    while True:
        hits = index.reader().search(query, index.relations[0].relation_id, View.AVERAGE, 100)
        if change.item_id in {hit.item.item_id for hit in hits}:
            return time.perf_counter() - started


def search(index: Index, items: int, seconds: float, draw: Random) -> dict[str, list[float]]:
    """Run searches for `seconds` seconds; return the milliseconds that each took, by the name of the filter."""
    took: dict[str, list[float]] = {name: [] for name in SELECTIONS}
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for name in draw.sample(list(SELECTIONS), len(SELECTIONS)):
            asked = f"item-{draw.randrange(items)}"
            relation = draw.choice(index.relations).relation_id
            started = time.perf_counter()
            index.reader().neighbours(asked, relation, Similarity.AVG, 10, SELECTIONS[name])
            took[name].append(1e3 * (time.perf_counter() - started))
    return took


def follow(pipe: Connection, path: Path) -> None:
    """Receive item IDs from `pipe`, and send back the time at which each item appears in the index.

    This function runs in another process, in which the index is refreshed every 0.2 s.
    """
    index = Index.open(path)
    pipe.send("")
    while name := pipe.recv():
        while name not in index.snapshot:
            time.sleep(REFRESH_INTERVAL_S)
            index.refresh()
        pipe.send(time.monotonic())
    index.close()


def seen_elsewhere(index: Index, changes: Iterator[Change], count: int) -> list[float]:
    """Return the seconds from each acknowledgement until another process finds the item."""
    fresh = multiprocessing.get_context("spawn")
    pipe, theirs = fresh.Pipe()
    process = fresh.Process(target=follow, args=(theirs, index.path), daemon=True)
    process.start()
    theirs.close()  # otherwise recv() would wait forever if the process died
    pipe.recv()
    took = []
    draw = Random(0)
    for _ in range(count):
        change = next(changes)
        pipe.send(change.item_id)
        time.sleep(draw.uniform(0.05, 0.05 + REFRESH_INTERVAL_S))
        index.apply([change])
        acknowledged = time.monotonic()
        took.append(pipe.recv() - acknowledged)
    pipe.send("")
    process.join()
    return took


def measure(
    index: Index, shop: Shop, rounds: int, seconds: float, per_s: float, before: int
) -> dict[str, Any]:
    """Apply the initial changes, run all blocks and return the figures."""
    changes = shop.changes()
    for _ in range(0, before, 100):
        index.apply([next(changes) for _ in range(100)])
    writer = Writer(index, changes, per_s)
    blocks: dict[str, dict[str, list[float]]] = {
        side: {name: [] for name in SELECTIONS} for side in ("quiet", "live")
    }
    draw = Random(0)
    search(index, shop.items, seconds, draw)  # warm-up, which loads all pages of the index into memory
    wrote = 0.0
    for _ in range(rounds):
        for side in draw.sample(list(blocks), len(blocks)):
            stop = Event()
            thread = Thread(target=writer.run, args=(stop,))
            started = time.perf_counter()
            if side == "live":
                thread.start()
            for name, took in search(index, shop.items, seconds, draw).items():
                blocks[side][name] += took
            stop.set()
            if side == "live":
                thread.join()
                wrote += time.perf_counter() - started
    rows = []
    for name in SELECTIONS:
        quiet, live = (np.quantile(blocks[side][name], [0.5, 0.99]).tolist() for side in blocks)
        rows.append(
            {
                "filter": name,
                "quiet_p50_ms": quiet[0],
                "quiet_p99_ms": quiet[1],
                "live_p50_ms": live[0],
                "live_p99_ms": live[1],
                "ratio_p99": live[1] / quiet[1],
            }
        )
    elsewhere = seen_elsewhere(index, changes, max(rounds, 5))
    return {
        "kind": shop.kind,
        "items": shop.items,
        "relations": len(shop.relations),
        "changes": len(index.snapshot.overlay.entries),
        "changes_per_s": writer.applied / wrote,
        "apply_p50_ms": 1e3 * float(np.median(writer.seconds)),
        "apply_p99_ms": 1e3 * float(np.quantile(writer.seconds, 0.99)),
        "seen_ms": 1e3 * max(writer.seen, default=0.0),
        "seen_elsewhere_ms": 1e3 * max(elsewhere),
        "rows": rows,
    }


def main() -> None:
    """Build an index, measure it and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="use few items and short blocks, to check that it runs"
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--relations", type=int, default=10)
    parser.add_argument("--kind", choices=get_args(IndexKind), default="flat")
    parser.add_argument("--changes", type=int, default=0, help="changes applied beforehand")
    parser.add_argument("--per-s", type=float, default=100, help="changes per second")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3, help="seconds per block")
    asked = parser.parse_args()
    if asked.quick:
        asked.items, asked.relations, asked.rounds, asked.seconds = 1_000, 2, 2, 0.3
    with tempfile.TemporaryDirectory() as folder:
        dim = 32 if asked.quick else DIM
        shop = Shop(Path(folder), asked.items, relations(asked.relations), dim, asked.kind)
        index = Index.open(shop.write())
        try:
            figures = measure(index, shop, asked.rounds, asked.seconds, asked.per_s, asked.changes)
        finally:
            index.close()
    _show(figures)
    conclude(figures)


def _show(figures: dict[str, Any]) -> None:
    names = ("quiet_p50_ms", "quiet_p99_ms", "live_p50_ms", "live_p99_ms", "ratio_p99")
    show(
        f"{figures['kind']}, {figures['items']:,} items x {figures['relations']} relations, "
        f"{figures['changes_per_s']:.0f} changes per second, {figures['changes']:,} changed items at the end",
        ("filter", "quiet p50 ms", "quiet p99 ms", "live p50 ms", "live p99 ms", "ratio of p99"),
        [[row["filter"], *(f"{row[name]:.2f}" for name in names)] for row in figures["rows"]],
    )
    print(
        f"A change is durable after {figures['apply_p50_ms']:.1f} ms (p99 {figures['apply_p99_ms']:.1f} ms)."
    )
    print(
        f"A search in this process finds it at most {figures['seen_ms']:.0f} ms later (search included), "
        f"another process at most {figures['seen_elsewhere_ms']:.0f} ms later."
    )


if __name__ == "__main__":
    main()
