"""Searches compared with plain FAISS: `python -m benchmarks.search [--quick] [--items 10000 100000] [--relations 1]`.

For every kind of index, number of items and filter, the benchmark times the search for the ten nearest items with
`FaissVectors`. The reference is FAISS, called directly on the same files, which are opened in the same way and searched
with the same parameters. FAISS applies a filter with an `IDSelector` inside the graph or the cells. `FaissVectors`
scans the allowed items, which is exact, filters the candidates of the ANN index, or scans one-bit codes. For
compressed codes, both variants rescore the candidates from the stored vectors (`IndexRefine`). Both run one query at a
time in one thread.

`--filters` compares filters by category, by price, and by both, which allow from 0.01 % to all of the items, near the
query or far from it: `--filters --items 1000000 --dim 128 --kinds hnsw --queries 100` takes 2 GiB of memory.

Every index is built in one new process and searched in another. The reported memory is the growth of the process: at
the peak of the build, and after the searches. The first search is timed separately, together with opening the vectors,
after their files have been evicted from the page cache. All other searches find the files in the page cache, as in a
real process: opening an index reads all its files to verify their digests.

If FAISS can use a GPU, flat indexes are also searched there, with one query and with 256 at once. The reference is the
time to read the vectors once from the memory of the GPU, half the time to copy them within it.

For a million items under ten relations, use `--items 1000000 --relations 10 --kinds hnsw --folder FOLDER`. An index
that already exists in FOLDER is not built again.
"""

import argparse
import ctypes
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, get_args

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from benchmarks.rig.embeddings import DIM, Embeddings
from benchmarks.rig.filter_table import measure_filters, show_filters
from benchmarks.rig.filters import FILTERS, drawn
from benchmarks.rig.plain_faiss import VIEW, K, PlainFaiss
from benchmarks.rig.results import conclude, show
from indexes.config import IndexKind
from indexes.vectors.contract import ROUNDING
from indexes.vectors.faiss_backend import FaissVectors, write_vectors
from indexes.vectors.gpu_card import NoGpuError, cuda_runtime, find_cards
from indexes.vectors.gpu_vectors import Cards

BUILD_FILE = "build.json"
"""Name of the file that `build` writes last."""

GPU_QUERIES, GPU_ROUNDS = 256, 100

DEVICE_TO_DEVICE = 3
"""`cudaMemcpyDeviceToDevice` of the CUDA runtime."""

Asked = tuple[int, Float32[ndarray, " dim"]]
"""Position of the relation, and the query vector."""


@dataclass(frozen=True)
class Case:
    """One index and the number of queries to search it with."""

    folder: Path
    kind: IndexKind
    items: int
    relations: int
    queries: int
    dim: int = DIM

    @property
    def path(self) -> Path:
        """Folder of the vectors."""
        return self.folder / f"{self.kind}-{self.items}-{self.relations}-{self.dim}"


def build(case: Case) -> None:
    """Write the vectors, and record the time and memory that this took in `BUILD_FILE`."""
    shutil.rmtree(case.path, ignore_errors=True)  # a build that was interrupted
    started, before = time.perf_counter(), memory()
    written: list[float] = []
    write_vectors(
        case.path,
        case.relations,
        case.dim,
        lambda relation, _: Embeddings(relation, case.dim).chunks(case.items),
        case.kind,
        min_recall=0.95,
        advance=lambda: written.append(time.perf_counter() - started),
        views=[VIEW],
    )
    took = {
        "build_s": written[-1] / case.relations,
        "build_mib": (memory("VmHWM") - before) / 2**20,
    }
    (case.path / BUILD_FILE).write_text(json.dumps(took))


def built(case: Case) -> dict[str, float]:
    """Return the seconds and the memory that `build` recorded."""
    found: dict[str, float] = json.loads((case.path / BUILD_FILE).read_text())
    return {name: round(value, 1) for name, value in found.items()}


def measure(case: Case) -> list[dict[str, Any]]:
    """Measure one index and return one row per filter."""
    before = memory()
    queries = [Embeddings(relation, case.dim).queries(case.queries) for relation in range(case.relations)]
    asked = [(relation, query) for relation, some in enumerate(queries) for query in some]
    asked = Random(0).sample(asked, max(case.queries, 1))
    forget(case.path)
    opened = time.perf_counter()
    vectors = FaissVectors(case.path)
    vectors.search(asked[0][0], VIEW, asked[0][1], K)
    cold = time.perf_counter() - opened
    read_through(case.path)
    for relation, query in asked:
        vectors.search(relation, VIEW, query, K)
    grown = memory() - before
    plain = PlainFaiss(case.path, vectors)
    reports = vectors.report.values()
    fixed = {
        "kind": case.kind,
        "items": case.items,
        "relations": case.relations,
        "bytes_per_vector": max(report.bytes_per_vector for report in reports),
        "effort": max(report.effort or 0 for report in reports),
        **built(case),
        "memory_mib": grown / 2**20,
        "cold_ms": 1e3 * cold,
    }
    return [{**fixed, **compare(vectors, plain, asked, name, share)} for name, share in FILTERS.items()]


def compare(
    vectors: FaissVectors, plain: PlainFaiss, asked: Sequence[Asked], name: str, share: float
) -> dict[str, Any]:
    """Measure the recall and times of both variants under one filter. Each query runs in both, in random order.

    Before each timed query, the same variant runs a different query that is not timed. Otherwise a variant would profit
    from data that the other variant has just loaded into the CPU caches.
    """
    draw = Random(1)
    allowed = None if share == 1 else drawn(vectors.count, share)
    sides: dict[str, Callable[[Asked], ndarray]] = {
        "ours": lambda one: vectors.search(one[0], VIEW, one[1], K, allowed).scores,
        "faiss": lambda one: plain.search(*one, allowed),
    }
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    found: dict[str, list[int]] = {side: [] for side in sides}
    least = [plain.least(*one, allowed) for one in asked]
    for number, (one, tenth) in enumerate(
        [*zip(asked[:20], least, strict=False), *zip(asked, least, strict=True)]
    ):
        for side in draw.sample(list(sides), len(sides)):
            sides[side](asked[number % len(asked) - 1])
            started = time.perf_counter()
            scores = sides[side](one)
            took = time.perf_counter() - started
            if number >= 20:
                seconds[side].append(took)
                found[side].append(int((scores >= tenth - ROUNDING).sum()))
    ours, theirs = (1e3 * np.array(seconds[side]) for side in sides)
    p50, p95, p99 = np.quantile(ours, [0.5, 0.95, 0.99]).tolist()
    few = min(K, few_of(allowed, vectors))
    methods = {
        method
        for relation, query in asked[:100]
        if (filtered := vectors.search(relation, VIEW, query, K, allowed).filtered) is not None
        for method in filtered.methods
    }
    return {
        "filter": name,
        "method": " ".join(sorted(methods)) or "none",
        "recall_at_10": float(np.mean(found["ours"]) / few),
        "faiss_recall_at_10": float(np.mean(found["faiss"]) / few),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "per_s": 1e3 / float(ours.mean()),
        "faiss_p50_ms": float(np.median(theirs)),
        "faiss_p99_ms": float(np.quantile(theirs, 0.99)),
        "ratio_to_faiss": p50 / float(np.median(theirs)),
    }


def few_of(allowed: Bool[ndarray, " count"] | None, vectors: FaissVectors) -> int:
    """Return the number of allowed items."""
    return vectors.count if allowed is None else int(np.count_nonzero(allowed))


def measure_on_gpu(case: Case, cards: Cards, read_s: float) -> dict[str, Any]:
    """Measure the searches of a flat index of one relation on GPUs, which can read its vectors once in `read_s`."""
    vectors, queries = FaissVectors(case.path, cards), Embeddings(0, case.dim).queries(GPU_QUERIES)
    vectors.copy_to_gpus()

    def p50_ms(search: Callable[[int], object]) -> float:
        seconds = []
        for number in range(10 + GPU_ROUNDS):
            started = time.perf_counter()
            search(number % GPU_QUERIES)
            seconds.append(time.perf_counter() - started)
        return 1e3 * float(np.median(seconds[10:]))

    together = vectors.scan(0, VIEW, queries, K)
    one = p50_ms(lambda number: vectors.search(0, VIEW, queries[number], K))
    many = p50_ms(lambda number: vectors.scan(0, VIEW, queries, K))
    return {
        "items": case.items,
        "device": vectors.device,
        "found_on_gpu": together is not None,
        "read_ms": 1e3 * read_s,
        "one_query_p50_ms": one,
        "256_queries_p50_ms": many,
        "one_query_ratio": one / (1e3 * read_s),
        "256_queries_ratio": many / (1e3 * read_s),
    }


def read_seconds(size: int) -> float:
    """Measure how long the first GPU takes to read `size` bytes: half the time of a copy, which also writes them.

    Raises:
        NoGpuError: the CUDA runtime is not found, or fails.
    """
    runtime, seconds = cuda_runtime(), []
    source, target = ctypes.c_void_p(), ctypes.c_void_p()
    codes = [runtime.cudaMalloc(ctypes.byref(one), ctypes.c_size_t(size)) for one in (source, target)]
    for _ in range(20):
        started = time.perf_counter()
        codes.append(runtime.cudaMemcpy(target, source, ctypes.c_size_t(size), DEVICE_TO_DEVICE))
        codes.append(runtime.cudaDeviceSynchronize())
        seconds.append(time.perf_counter() - started)
    for one in (source, target):
        runtime.cudaFree(one)
    if any(codes):
        raise NoGpuError(f"the CUDA runtime cannot copy {size:,} bytes (error {max(codes)})")
    return float(np.median(seconds)) / 2


def on_gpu(case: Case) -> dict[str, Any] | None:
    """Measure a flat index on the GPUs that FAISS finds; None if it finds none."""
    try:
        cards = Cards(find_cards(), 0.9)
        return measure_on_gpu(case, cards, read_seconds(2 * case.dim * case.items))
    except NoGpuError:
        return None


def memory(which: str = "VmRSS") -> int:
    """Return the resident memory of this process in bytes, including mapped files; `VmHWM` selects its peak."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(which)).split()[1]) * 1024


def forget(folder: Path) -> None:
    """Evict the files of `folder` from the page cache."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())  # only written pages can be evicted
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_through(folder: Path) -> None:
    """Read the files of `folder` into the page cache, as opening an index does when it verifies the digests."""
    for path in folder.iterdir():
        with path.open("rb", buffering=0) as file:
            while file.read(2**24):
                pass


def main() -> None:
    """Build the missing indexes, measure all indexes and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="use few, short vectors, to check that it runs")
    parser.add_argument("--filters", action="store_true", help="compare filters that allow few to all items")
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--dim", type=int, default=DIM, help="number of components of a vector")
    parser.add_argument("--relations", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=get_args(IndexKind), default=get_args(IndexKind))
    parser.add_argument("--queries", type=int, default=1_000, help="number of queries over all relations")
    parser.add_argument("--folder", type=Path, help="folder in which indexes are kept and reused")
    asked = parser.parse_args()
    if asked.quick:
        asked.items, asked.queries, asked.dim = [12_000], 20, 32
    rows: list[dict[str, Any]] = []
    gpu: list[dict[str, Any]] = []
    fresh = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for items, kind in product(asked.items, asked.kinds):
            case = Case(folder, kind, items, asked.relations, asked.queries, asked.dim)
            with ProcessPoolExecutor(1, mp_context=fresh, max_tasks_per_child=1) as process:
                if not (case.path / BUILD_FILE).exists():
                    process.submit(build, case).result()
                if asked.filters:
                    found = process.submit(measure_filters, case.path, asked.queries).result()
                    fixed = {"kind": kind, "items": items, "dim": asked.dim, **built(case)}
                    show_filters(", ".join(f"{name}: {value}" for name, value in fixed.items()), found)
                    rows += [{**fixed, **row} for row in found]
                    continue
                rows += (found := process.submit(measure, case).result())
                _show(found)
                if kind == "flat" and (on_card := process.submit(on_gpu, case).result()) is not None:
                    gpu.append(on_card)
    if gpu:
        show("flat, on the GPU", [*gpu[0]], [[str(one) for one in _rounded(row).values()] for row in gpu])
    conclude({"rows": [_rounded(row) for row in rows], **({"gpu": [*map(_rounded, gpu)]} if gpu else {})})


def _show(rows: Sequence[dict[str, Any]]) -> None:
    first = rows[0]
    title = (
        f"{first['kind']}, {first['items']:,} items x {first['relations']} relations, {first['bytes_per_vector']:,.0f} "
        f"bytes per vector; build: {first['build_s']:,.1f} s per relation, {first['build_mib']:,.0f} MiB; "
        f"search: {first['memory_mib']:,.0f} MiB; first search from disk: {first['cold_ms']:,.0f} ms"
    )
    columns = (
        "filter",
        "method",
        "recall",
        "p50 ms",
        "p95",
        "p99",
        "queries/s",
        "FAISS recall",
        "FAISS p50",
        "FAISS p99",
        "ratio",
    )
    names = ("p50_ms", "p95_ms", "p99_ms")
    table = [
        [
            row["filter"],
            row["method"],
            f"{row['recall_at_10']:.4f}",
            *(f"{row[name]:.3f}" for name in names),
            f"{row['per_s']:,.0f}",
            f"{row['faiss_recall_at_10']:.4f}",
            f"{row['faiss_p50_ms']:.3f}",
            f"{row['faiss_p99_ms']:.3f}",
            f"{row['ratio_to_faiss']:.3f}",
        ]
        for row in rows
    ]
    show(title, columns, table)


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(one, 4) if isinstance(one, float) else one for name, one in row.items()}


if __name__ == "__main__":
    main()
