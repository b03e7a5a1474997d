"""A large catalogue on one machine, built for real: `python -m benchmarks.scale.one_machine [--quick] [--items N]`.

The vectors of each relation and view differ (`benchmarks/rig/relation_vectors.py`); their files are written, and their
recall is measured, by the function that `rcml index build` uses. Afterwards, one server process and then two at once
search all files in turn, with new items as queries, when the files are in the page cache. The table shows the time of
the build, the recall in each view, and the times and the memory of the processes.

A million items under ten relations, with 128 components, take 11 GB of disk as codes, and 6 GB of memory.
"""

import argparse
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from benchmarks.rig.relation_vectors import RelationVectors
from benchmarks.rig.results import conclude, show
from indexes.builder.auto_options import choose_kind, resident_size
from indexes.builder.machine import peak_memory, readable_size
from indexes.config import FILE_KINDS, BuildConfig, IndexKind
from indexes.vectors.contract import file_name
from indexes.vectors.faiss_backend import FaissVectors, write_vectors
from indexes.vectors.faiss_threads import thread_per_core
from model.similarity import View

K = 10

NEW_ITEMS = 64
"""Number of items that are not in the index. Their vectors under each relation and in each view are the queries."""

QUERIES_FILE = "queries.npy"


@dataclass(frozen=True)
class Served:
    """What one server process measured: milliseconds of each search, and its memory in bytes."""

    milliseconds: list[float]
    memory: dict[str, int]


def main() -> None:
    """Build the files, search them, and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="build few, short vectors, to check that it runs"
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--relations", type=int, default=10)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--kind", choices=["auto", *FILE_KINDS], default="ivf-rabitq")
    parser.add_argument("--max-memory", default="16GB", help="as of `rcml index build`")
    parser.add_argument("--min-recall", type=float, default=0.95, help="as of `rcml index build`")
    parser.add_argument("--searches", type=int, default=3_000, help="number of searches of each process")
    parser.add_argument("--folder", type=Path, help="folder that keeps the files; none: they are removed")
    asked = parser.parse_args()
    if asked.quick:
        asked.items, asked.relations, asked.dim, asked.searches = 12_000, 2, 32, 60
    config = BuildConfig(
        checkpoint=Path(), prepared=Path(), out=Path(), kind=asked.kind, max_memory=asked.max_memory
    )
    kind = choose_kind(config, asked.items, asked.relations, asked.dim)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (asked.folder or Path(temporary)) / f"{kind}-{asked.items}-{asked.relations}-{asked.dim}"
        # The queries are written last, so a folder without them is from a build that was ended.
        built = {} if (folder / QUERIES_FILE).exists() else build(folder, kind, asked)
        figures = {
            **{name: getattr(asked, name) for name in ("items", "relations", "dim", "max_memory")},
            "kind": kind,
            "memory_expected": {
                one: resident_size(one, asked.items, asked.relations, asked.dim) for one in FILE_KINDS
            },
            **built,
            **measure(folder, asked.searches),
        }
    show(
        f"{asked.items:,} items, {asked.relations} relations, 3 views of {asked.dim} components, {kind}",
        ("", "value"),
        [[name.replace("_", " "), str(value)] for name, value in figures.items()],
    )
    conclude(figures)


def build(folder: Path, kind: IndexKind, asked: argparse.Namespace) -> dict[str, Any]:
    """Write the files and the queries, and return how long it took."""
    started = time.perf_counter()
    source = RelationVectors(asked.items + NEW_ITEMS, asked.dim)
    generated = time.perf_counter()
    written: list[float] = []
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)

    def indexed(relation: int, view: View) -> Iterable[ndarray]:
        left = asked.items
        for chunk in source.chunks(relation, view):
            yield chunk[:left]
            left -= len(chunk[:left])

    write_vectors(
        folder,
        asked.relations,
        asked.dim,
        indexed,
        kind,
        asked.min_recall,
        advance=lambda: written.append(time.perf_counter()),
    )
    new = slice(asked.items, asked.items + NEW_ITEMS)
    queries = [[source.vectors(relation, view, new) for view in View] for relation in range(asked.relations)]
    np.save(folder / QUERIES_FILE, queries)
    done = time.perf_counter()
    return {
        "generate_min": round((generated - started) / 60, 2),
        "write_min": round((written[-1] - generated) / 60, 2),
        "measure_min": round((done - written[-1]) / 60, 2),
        "build_peak": readable_size(peak_memory()),
    }


def measure(folder: Path, searches: int) -> dict[str, Any]:
    """Return the recall in each view, and what one server process and two at once measure."""
    vectors = FaissVectors(folder)
    queries = np.load(folder / QUERIES_FILE)
    reports = {view: [vectors.report[file_name(one, view)] for one in range(len(queries))] for view in View}
    figures: dict[str, Any] = {
        "disk": readable_size(sum(path.stat().st_size for path in folder.glob("*.faiss"))),
        "effort": {view.value: sorted({one.effort for one in some}) for view, some in reports.items()},
        "recall_at_build": {
            view.value: _range([one.recall_at_10 or 1.0 for one in some]) for view, some in reports.items()
        },
        "recall_of_new_items": {view.value: _range(new_recall(vectors, view, queries)) for view in View},
        "same_under_another_relation": round(shared_neighbours(vectors, queries), 4),
    }
    for count in (1, 2):
        served = serve(folder, searches, count)
        p50, p99 = np.quantile([one for each in served for one in each.milliseconds], [0.5, 0.99]).tolist()
        figures[f"servers_{count}"] = {"p50_ms": round(p50, 2), "p99_ms": round(p99, 2)} | {
            name: [readable_size(each.memory[name]) for each in served] for name in served[0].memory
        }
    return figures


def _range(recalls: list[float]) -> str:
    return f"{np.mean(recalls):.4f} (lowest of a relation {min(recalls):.4f})"


def new_recall(vectors: FaissVectors, view: View, queries: ndarray) -> list[float]:
    """Return the recall@10 of new items under each relation, compared with a scan."""
    place = list(View).index(view)

    def recall(asked: tuple[int, ndarray]) -> float:
        relation, query = asked
        least = vectors.stored(relation, view).scan(query, K).scores[-1]
        return float((vectors.search(relation, view, query, K).scores >= least).mean())

    with thread_per_core() as pool:
        return [
            float(np.mean(list(pool.map(recall, [(relation, one) for one in some[place]]))))
            for relation, some in enumerate(queries)
        ]


def shared_neighbours(vectors: FaissVectors, queries: ndarray) -> float:
    """Return the share of the ten nearest under the first relation that are nearest under the last one, too; AVG."""
    place, last = list(View).index(View.AVERAGE), len(queries) - 1
    found = [
        [
            set(vectors.search(relation, View.AVERAGE, query, K).rows.tolist())
            for query in queries[relation, place]
        ]
        for relation in (0, last)
    ]
    return float(np.mean([len(one & other) / K for one, other in zip(*found, strict=True)]))


def serve(folder: Path, searches: int, count: int) -> list[Served]:
    """Return what `count` server processes measure at once."""
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(count)
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    processes = [
        context.Process(target=_serve, args=(folder, searches, number, together, sender), daemon=True)
        for number, (_, sender) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for _, sender in pipes:
        sender.close()  # so that a process that fails ends the wait for it
    served = [receiver.recv() for receiver, _ in pipes]
    for process in processes:
        process.join()
    return served


def _serve(folder: Path, searches: int, number: int, together: Barrier, results: Connection) -> None:
    """Search every file with all queries, then measure `searches` searches in files drawn at random."""
    vectors, queries = FaissVectors(folder), np.load(folder / QUERIES_FILE)
    views = list(View)
    files = [(relation, view) for relation in range(len(queries)) for view in range(len(views))]

    def search(relation: int, view: int, query: int) -> None:
        vectors.search(relation, views[view], queries[relation, view, query], K)

    for relation, view in files:
        for query in range(NEW_ITEMS):
            search(relation, view, query)
    draw = np.random.default_rng(number)
    took = []
    together.wait()
    for place, query in draw.integers(0, (len(files), NEW_ITEMS), (searches, 2)).tolist():
        relation, view = files[place]
        started = time.perf_counter()
        search(relation, view, query)
        took.append(1e3 * (time.perf_counter() - started))
    together.wait()  # the memory is shared as long as both processes map the files
    memory = _memory()
    together.wait()
    results.send(Served(took, memory))


def _memory() -> dict[str, int]:
    """Return the memory of this process: with mapped pages, its share of them, and its own pages, in bytes."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: 1024 * int(size.split()[0]) for name, _, size in (line.partition(":") for line in lines)}
    return {"rss": sizes["Rss"], "pss": sizes["Pss"], "private": sizes["Private_Dirty"]}


if __name__ == "__main__":
    main()
