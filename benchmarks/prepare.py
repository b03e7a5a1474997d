"""Preparation of a large log: `python -m benchmarks.prepare [--rows 20000000] [--quick]`.

The log is generated in the layout of the 5-core files of Amazon 2023 (user_id, parent_asin, rating, timestamp in ms).
By default it has 20 million reviews of 2 million users and 400,000 items without pictures. Ten planted groups of users
prefer categories of their own, the popularity of items follows Zipf's law, and half of a user's items are neighbours of
the item before. `rcml prepare` runs as a child, first on a tenth of the rows, then on all. Peak memory is the largest
sum of the resident memory of the child and its descendants. The exponent says how the time grows: 1 is linear.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy import ndarray

from benchmarks.rig.results import conclude, show

GROUPS = 10
LEAVES = 20  # categories of each group
OWN_SHARE = 0.85
"""Share of a user's items from the categories of the own group; the others are from anywhere."""

NEIGHBOURS = 4
"""Half of the items are at most this many places after the user's item before."""

MIN_ITEMS, MAX_ITEMS = 5, 500

DRAWN_ITEMS = 10.4
"""Mean number of items drawn for a user. About 10 remain without the repeated ones."""

BLOCK_USERS = 100_000
SAMPLE_SECONDS = 0.1


@dataclass(frozen=True)
class Run:
    """Figures of one preparation. `planted` is the share of edges whose items belong to the same planted group."""

    rows: int
    seconds: float
    peak_gib: float
    edges: int
    planted: float


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", type=int, default=20_000_000, help="reviews; a tenth as many users, a 50th items"
    )
    parser.add_argument("--quick", action="store_true", help="use 50,000 reviews, to check that it runs")
    parser.add_argument(
        "--folder", type=Path, help="existing folder for the temporary files, which need 3 GB"
    )
    options = parser.parse_args()
    rows = 50_000 if options.quick else options.rows
    conclude(measure([rows // 10, rows], options.folder))


def measure(sizes: list[int], folder: Path | None) -> dict[str, Any]:
    """Prepare logs of the given sizes and return the figures of the last."""
    runs = []
    for rows in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            runs.append(prepare(Path(name), rows))
    show(
        "rcml prepare, text only",
        ["reviews", "seconds", "peak GiB", "reviews/s", "edges", "edges in one group"],
        [
            [
                f"{run.rows:,}",
                f"{run.seconds:.1f}",
                f"{run.peak_gib:.2f}",
                f"{run.rows / run.seconds:,.0f}",
                f"{run.edges:,}",
                f"{run.planted:.1%}",
            ]
            for run in runs
        ],
    )
    first, last = runs[0], runs[-1]
    exponent = np.log(last.seconds / first.seconds) / np.log(last.rows / first.rows)
    return {
        "rows": last.rows,
        "seconds": round(last.seconds, 1),
        "peak_gib": round(last.peak_gib, 2),
        "exponent": round(float(exponent), 2),
    }


def prepare(folder: Path, rows: int) -> Run:
    """Generate a log of about `rows` reviews in `folder`, prepare it, and return the figures."""
    items = max(GROUPS * LEAVES, rows // 50)
    write_items(folder / "items.jsonl", items)
    written = write_log(folder / "log.csv", rows, items)
    out = folder / "prepared"
    command = [sys.executable, "-m", "rcml", "prepare", "--items", str(folder / "items.jsonl")]
    command += [
        "--interactions",
        str(folder / "log.csv"),
        "--columns",
        "item_id=parent_asin",
        "--out",
        str(out),
    ]
    seconds, peak = measured([*command, "--clusters", str(GROUPS)], folder / "said.txt")
    edges = pl.concat([pl.read_parquet(out / name) for name in ("edges.parquet", "edges_across.parquet")])
    sides = edges.select(pl.col("item_a", "item_b").str.tail(8).cast(pl.Int64) % GROUPS)
    return Run(written, seconds, peak, len(edges), (sides["item_a"] == sides["item_b"]).mean() or 0.0)  # type: ignore[arg-type]


def write_items(path: Path, items: int) -> None:
    """Write items as JSON Lines. Item n belongs to group n % GROUPS and to one of its leaves."""
    number = pl.int_range(items)
    group, leaf = number % GROUPS, number // GROUPS % LEAVES
    columns = [
        asin(number).alias("parent_asin"),
        pl.format("Product {} of series {}", number, number // (GROUPS * LEAVES)).alias("title"),
        pl.concat_list(pl.format("Department {}", group), pl.format("Shelf {}-{}", group, leaf)).alias(
            "categories"
        ),
    ]
    pl.select(columns).write_ndjson(path)


def asin(number: pl.Expr) -> pl.Expr:
    """Return an ID of 10 characters, as Amazon's."""
    return pl.format("B0{}", number.cast(pl.String).str.zfill(8))


def write_log(path: Path, rows: int, items: int) -> int:
    """Write about `rows` reviews as .csv, user block by user block, and return their number."""
    rng = np.random.default_rng(0)
    own = items // GROUPS
    weights = np.cumsum(1 / np.arange(1, own + 1) ** 0.8)
    users, written = rows // 10, 0
    with path.open("wb") as file:
        for start in range(0, users, BLOCK_USERS):
            user, item = draw(np.arange(start, min(start + BLOCK_USERS, users)), own, weights, rng)
            block = pl.DataFrame({"user": user, "item": item}).unique(maintain_order=True)
            seconds = rng.integers(1_300_000_000, 1_690_000_000, len(block))
            block.select(
                pl.format("AE{}", pl.col("user").cast(pl.String).str.zfill(26)).alias("user_id"),
                asin(pl.col("item")).alias("parent_asin"),
                pl.Series("rating", rng.choice([1.0, 2.0, 3.0, 4.0, 5.0], len(block))),
                pl.Series("timestamp", seconds * 1000),
            ).sort("timestamp").write_csv(file, include_header=start == 0)
            written += len(block)
    return written


def draw(users: ndarray, own: int, weights: ndarray, rng: np.random.Generator) -> tuple[ndarray, ndarray]:
    """Draw items for `users`, at least `MIN_ITEMS` each. User u belongs to group u % GROUPS.

    `own` is the number of items of each group, and `weights` is the cumulative popularity of its items.
    """
    counts = MIN_ITEMS + rng.geometric(1 / (DRAWN_ITEMS - MIN_ITEMS + 1), len(users)) - 1
    user = np.repeat(users, np.minimum(counts, MAX_ITEMS))
    place = np.searchsorted(weights, rng.random(len(user)) * weights[-1])
    # The popular items of a group lie anywhere among its numbers, so that they are of all its leaves.
    place = place * 7919 % own if own % 7919 else place
    group = np.where(rng.random(len(user)) < OWN_SHARE, user % GROUPS, rng.integers(0, GROUPS, len(user)))
    follows = (rng.random(len(user)) < 0.5) & (user == np.roll(user, 1))
    near = np.roll(place, 1) + rng.integers(1, NEIGHBOURS + 1, len(user))
    place, group = np.where(follows, near % own, place), np.where(follows, np.roll(group, 1), group)
    return user, place * GROUPS + group


def measured(command: list[str], said: Path) -> tuple[float, float]:
    """Run `command`; return its wall time in seconds, and the peak memory of its processes in GiB."""
    peak = 0
    start = time.perf_counter()
    with said.open("w") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output)
    while True:
        ended, status, usage = os.wait4(child.pid, os.WNOHANG)
        if ended:
            break
        peak = max(peak, sum(resident(process) for process in family(child.pid)))
        time.sleep(SAMPLE_SECONDS)
    seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"rcml prepare failed: {said.read_text()[-2000:]}")
    # The kernel knows the exact peak of the child (in KiB on Linux), also between two samples.
    return seconds, max(peak, usage.ru_maxrss * 1024) / 2**30


def family(pid: int) -> list[int]:
    """Return a process and its descendants; empty without /proc."""
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return []
    return [pid, *(process for child in children for process in family(child))]


def resident(pid: int) -> int:
    """Return the resident memory of a process in bytes; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


if __name__ == "__main__":
    main()
