"""Formulas of docs/operations.md, "Sizing", and the measured runs that their constants come from.

The growth of each time is known, and only its factor is fitted. A graph is built in n log n. Codes are built in n^1.5,
because each vector is compared with 4 sqrt(n) cells, and searched in sqrt(n). A search in a graph takes log n steps,
which wait for memory ever longer: between the runs its time grew by sqrt(n), too. `residual` says how far a formula is
from the runs it was fitted to.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from indexes.builder.auto_options import resident_size
from indexes.builder.build_needs import CATALOGUE_BYTES
from indexes.config import IndexKind
from indexes.storage.table_maker import ANSWERS_PER_ITEM, ENTRY
from indexes.vectors.ann_index import (
    MIN_CANDIDATES,
    TRAINING_ROUNDS,
    VECTORS_PER_CELL,
)
from indexes.vectors.faiss_backend import ann_bytes
from model.similarity import View

SERVER_BYTES = 2**30
"""Memory of a server process besides the vectors: the network, and the catalogue as far as it is cached."""

TEXT_BYTES = 400
"""Bytes of the texts of an item in the catalogue, which stores them twice: in fields and as the network's input."""

ROUTE_SECONDS = 90e-6
"""Time that a server process spends on a request besides the search, on one core (docs/benchmarks.md, "Service")."""


@dataclass(frozen=True)
class Run:
    """Measured build and search of one relation and view: seconds of two cores to build, milliseconds (p50) to search.

    The runs are those of docs/benchmarks.md, "Search": synthetic vectors of 512 components.
    """

    items: int
    build_s: float
    search_ms: float


RUNS: dict[IndexKind, tuple[Run, ...]] = {
    "hnsw": (Run(100_000, 38.0, 0.13), Run(1_000_000, 309.0, 0.36)),
    "ivf-rabitq": (Run(100_000, 16.0, 0.13), Run(1_000_000, 215.0, 0.29)),
}
RUNS_DIM = 512

SCANS = (Run(10_000, 0.5, 0.22), Run(100_000, 1.5, 3.3))
"""Runs of an exact scan. A scan in Milvus takes at least as long, because its vectors have four bytes per component."""


BUILD_GROWTH: dict[IndexKind, Callable[[float], float]] = {
    "hnsw": lambda items: items * math.log(items),
    # The comparison of the vectors that train the 4 sqrt(n) cells with the cells, then of each vector.
    "ivf-rabitq": lambda items: 16 * TRAINING_ROUNDS * VECTORS_PER_CELL * items + 4 * items**1.5,
}


@dataclass(frozen=True)
class Fit:
    """Value `factor` x growth(n), fitted to runs, and the largest share by which it misses one of them."""

    growth: Callable[[float], float]
    factor: float
    residual: float

    def __call__(self, items: float) -> float:
        """Return the fitted value for a number of items."""
        return self.factor * self.growth(items)


def fit(growth: Callable[[float], float], points: Sequence[tuple[float, float]]) -> Fit:
    """Fit the factor of `growth` to (items, value) points, so that the relative errors are least."""
    logs = [math.log(value / growth(items)) for items, value in points]
    factor = math.exp(sum(logs) / len(logs))
    residual = max(abs(factor * growth(items) / value - 1) for items, value in points)
    return Fit(growth, factor, residual)


def build_fit(kind: IndexKind) -> Fit:
    """Fit the seconds to build one index, on two cores."""
    return fit(BUILD_GROWTH[kind], [(run.items, run.build_s) for run in RUNS[kind]])


def search_fit(kind: IndexKind) -> Fit:
    """Fit the milliseconds of one search, on one core."""
    return fit(math.sqrt, [(run.items, run.search_ms) for run in RUNS[kind]])


def scan_fit() -> Fit:
    """Fit the milliseconds of an exact scan, on one core."""
    return fit(lambda items: items, [(run.items, run.search_ms) for run in SCANS])


@dataclass(frozen=True)
class Machine:
    """Replica that serves an index: its cores, its memory in bytes, and the random reads of its disk per second."""

    cores: int
    memory: int
    reads_per_s: float


@dataclass(frozen=True)
class Size:
    """Resources of an index of one kind on one machine, or in Milvus: bytes, hours of two cores, queries a second."""

    memory: float
    disk: float
    hours: float
    queries_per_s: float


def vectors_on_disk(kind: IndexKind, items: int, relations: int, dim: int) -> int:
    """Return the bytes of the vectors in files: two for each component, the ANN index, and the codes for filters."""
    return items * relations * len(View) * (2 * dim + ann_bytes(kind, dim, items))


def catalogue_on_disk(items: int, relations: int) -> int:
    """Return the bytes of the catalogue and of one similarity's precomputed answers."""
    return items * (CATALOGUE_BYTES + TEXT_BYTES + relations * ANSWERS_PER_ITEM * ENTRY.itemsize)


def in_files(
    kind: IndexKind, items: int, relations: int, dim: int, machine: Machine, embedded_per_s: float
) -> Size:
    """Size an index in files, of which two generations are kept on disk, served by one process for each core.

    With codes, the candidates of a search are read from disk as far as the vectors do not fit into the memory that is
    left.
    """
    files, wider = relations * len(View), dim / RUNS_DIM
    query_s = 1e-3 * search_fit(kind)(items) * wider + ROUTE_SECONDS
    resident = SERVER_BYTES * machine.cores + resident_size(kind, items, relations, dim)
    full = items * files * 2 * dim
    on_disk = 0.0 if kind == "hnsw" else 1 - min(max(machine.memory - resident, 0) / full, 1)
    by_disk = machine.reads_per_s / (on_disk * MIN_CANDIDATES) if on_disk else math.inf
    generation = vectors_on_disk(kind, items, relations, dim) + catalogue_on_disk(items, relations)
    return Size(
        memory=resident,
        disk=2 * generation + full,  # `full` for the encoded items during the build
        hours=(items / embedded_per_s + files * build_fit(kind)(items) * wider) / 3_600,
        queries_per_s=min(machine.cores / query_s, by_disk),
    )


def in_milvus(items: int, relations: int, dim: int, cores: int, embedded_per_s: float) -> Size:
    """Size the vectors in Milvus: four bytes per component, two generations in memory, scanned by all `cores`."""
    vectors = items * relations * len(View) * 4 * dim
    return Size(
        memory=2 * vectors,
        disk=2 * vectors + items * relations * len(View) * 2 * dim,
        hours=items / embedded_per_s / 3_600,
        queries_per_s=cores / (1e-3 * scan_fit()(items) * 2 * dim / RUNS_DIM),
    )
