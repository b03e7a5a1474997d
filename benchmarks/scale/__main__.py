"""Sizes of large indexes, on paper: `python -m benchmarks.scale [--quick] [--items 1000000] [--relations 10]`.

Nothing of this size is built. The formulas are those of docs/operations.md, "Sizing". Their constants come from runs
that were measured (`sizing.py`); the benchmark prints how far each formula is from its runs. It also builds a small
index of each kind on this machine, to compare the formula for bytes with its files, and the speed of this machine with
that of the runs. With `--whole 10000` it only builds, opens and asks a whole index of this size (`whole_index.py`).
"""

import argparse
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.rig.embeddings import Embeddings
from benchmarks.rig.results import conclude, show
from indexes.builder.machine import readable_size
from indexes.config import IndexKind
from indexes.vectors.faiss_backend import write_vectors
from model.similarity import View

from .sizing import (
    RUNS,
    RUNS_DIM,
    Machine,
    Size,
    build_fit,
    catalogue_on_disk,
    in_files,
    in_milvus,
    scan_fit,
    search_fit,
    vectors_on_disk,
)
from .whole_index import measure


def main() -> None:
    """Print the fits, the check on this machine, and the sizes."""
    asked = options()
    if asked.whole:
        conclude(measure(asked))
        return
    built, dim = (12_000, 32) if asked.quick else (asked.built, RUNS_DIM)
    fits = show_fits()
    checks = {kind: check(kind, built, dim) for kind in RUNS}
    show(
        f"Small indexes built on this machine: {built:,} vectors of {dim} components",
        ["kind", "bytes per vector, formula", "measured", "build, formula", "measured"],
        [
            [
                kind,
                f"{found['bytes_formula']:,.0f}",
                f"{found['bytes']:,.0f}",
                f"{found['build_s_formula']:.1f} s",
                f"{found['build_s']:.1f} s",
            ]
            for kind, found in checks.items()
        ],
    )
    rows = sizes(asked)
    show(
        f"{asked.relations} relations, three views of {asked.dim} components; {asked.replicas} replicas of "
        f"{asked.cores} cores and {asked.memory_gib:g} GiB, {asked.reads_per_s:,.0f} reads/s; Milvus with "
        f"{asked.cores} cores; {asked.items_per_s:g} items/s embedded; memory and disk of each replica",
        ["items, vectors in", "memory", "disk", "build", "queries/s"],
        [
            [
                f"{row['items']:,}, {row['place']}",
                readable_size(row["memory"]),
                readable_size(row["disk"]),
                f"{row['hours']:,.1f} h",
                f"{row['queries_per_s']:,.1f}",
            ]
            for row in rows
        ],
    )
    conclude({"fits": fits, "checks": checks, "sizes": rows})


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="build few, short vectors, to check that it runs"
    )
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000, 100_000_000])
    parser.add_argument("--relations", type=int, default=10)
    parser.add_argument("--dim", type=int, default=RUNS_DIM)
    parser.add_argument(
        "--cores", type=int, default=8, help="cores of each replica, and of all Milvus nodes together"
    )
    parser.add_argument("--memory-gib", type=float, default=64.0, help="memory of each replica")
    parser.add_argument(
        "--reads-per-s", type=float, default=50_000.0, help="random reads of each replica's disk"
    )
    parser.add_argument("--replicas", type=int, default=4, help="machines that serve the same index")
    parser.add_argument("--items-per-s", type=float, default=60.0, help="rate at which items are embedded")
    parser.add_argument("--built", type=int, default=20_000, help="number of items of the small indexes")
    parser.add_argument("--whole", type=int, help="items of a whole index to measure, instead of all else")
    parser.add_argument("--folder", type=Path, help="folder on the disk for the whole index")
    return parser.parse_args()


def show_fits() -> dict[str, dict[str, float]]:
    """Print and return the factor of each formula, and how far it is from its runs."""
    fits = {
        **{f"{kind}, seconds to build": build_fit(kind) for kind in RUNS},
        **{f"{kind}, milliseconds to search": search_fit(kind) for kind in RUNS},
        "scan, milliseconds": scan_fit(),
    }
    rows = [[name, f"{one.factor:.3g}", f"{one.residual:.0%}"] for name, one in fits.items()]
    show("Fits", ["value", "factor", "largest error"], rows)
    return {name: {"factor": one.factor, "residual": round(one.residual, 3)} for name, one in fits.items()}


def check(kind: IndexKind, items: int, dim: int) -> dict[str, float]:
    """Build a small index and compare its bytes and seconds with the formulas."""
    with tempfile.TemporaryDirectory() as folder:
        path, started = Path(folder) / "vectors", time.perf_counter()
        took: list[float] = []
        write_vectors(
            path,
            1,
            dim,
            lambda relation, _: Embeddings(relation, dim).chunks(items),
            kind,
            advance=lambda: took.append(time.perf_counter() - started),
            views=[View.AVERAGE],
        )
        size = sum(file.stat().st_size for file in path.glob("*.faiss")) / items
    return {
        "bytes_formula": vectors_on_disk(kind, items, 1, dim) / items / len(View),
        "bytes": size,
        "build_s_formula": build_fit(kind)(items) * dim / RUNS_DIM,
        "build_s": took[0],
    }


def sizes(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the resources of each replica with its own files, and of Milvus with replicas that keep no vectors."""
    rows: list[dict[str, Any]] = []

    def add(items: int, place: str, size: Size) -> None:
        rows.append({"items": items, "place": place, **asdict(size)})

    shape = asked.relations, asked.dim
    machine = Machine(asked.cores, int(asked.memory_gib * 2**30), asked.reads_per_s)
    for items in asked.items:
        for kind in RUNS:
            one = in_files(kind, items, *shape, machine, asked.items_per_s)
            total = Size(one.memory, one.disk, one.hours, one.queries_per_s * asked.replicas)
            fits = one.memory <= machine.memory
            add(items, f"{kind} files{'' if fits else ' (does not fit)'}", total)
        milvus = in_milvus(items, *shape, asked.cores, asked.items_per_s)
        disk = milvus.disk + 2 * catalogue_on_disk(items, asked.relations)
        add(items, "Milvus (flat)", Size(milvus.memory, disk, milvus.hours, milvus.queries_per_s))
    return rows


if __name__ == "__main__":
    main()
