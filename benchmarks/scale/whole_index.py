"""A whole index, measured: `python -m benchmarks.scale --whole 10000 [--relations 10] [--dim 512] [--folder FOLDER]`.

The index has synthetic vectors in all three views, a catalogue, and precomputed answers for AVG, but no pictures and no
tokens. Times are processor time, because other work on the cores does not change it. The index is then opened in a new
process, which answers random questions: from the precomputed answers (AVG), and by a search (TT).
"""

import multiprocessing
from argparse import Namespace
from contextlib import closing
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

from benchmarks.rig.results import show
from benchmarks.rig.shop import Shop, relations
from indexes.builder.machine import readable_size
from indexes.index import Index
from indexes.storage.layout import newest_generation
from model.similarity import Similarity

QUESTIONS = 300


def measure(asked: Namespace) -> dict[str, Any]:
    """Build an index of `asked.whole` items, open it in a new process, and print and return what both cost."""
    with TemporaryDirectory(dir=asked.folder) as folder:
        shop = Shop(
            Path(folder), asked.whole, relations(asked.relations), asked.dim, answers=(Similarity.AVG,)
        )
        started = process_time()
        index = shop.write()
        row: dict[str, Any] = {"items": asked.whole, "build_cpu_s": round(process_time() - started, 1)}
        row |= {f"disk_{name}": size for name, size in disk(newest_generation(index)).items()}
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row |= pool.apply(serve, (index, asked.whole, asked.relations))
    show(
        f"A whole index: {asked.relations} relations, three views of {asked.dim} components",
        ["", "value"],
        [[name.replace("_", " "), written(name, value)] for name, value in row.items()],
    )
    return row


def written(name: str, value: float) -> str:
    """Return a measured value with its unit, which its name tells."""
    return readable_size(int(value)) if name.startswith(("disk", "memory")) else f"{value:,.3g}"


def disk(generation: Path) -> dict[str, int]:
    """Return the bytes of the folders of a generation, and of all its other files together."""
    sizes: dict[str, int] = {}
    for path in generation.rglob("*"):
        if path.is_file():
            place = path.relative_to(generation).parts
            name = place[0] if len(place) > 1 else "catalogue"
            sizes[name] = sizes.get(name, 0) + path.stat().st_size
    return sizes


def serve(path: Path, items: int, number: int) -> dict[str, float]:
    """Open the index and answer questions; return the seconds of the processor and the bytes of memory."""
    before, started = memory(), process_time()
    with closing(Index.open(path)) as index:
        opened, reader, draw = process_time() - started, index.reader(), Random(0)
        idle = memory()
        took: dict[Similarity, list[float]] = {Similarity.AVG: [], Similarity.TT: []}
        for similarity, times in took.items():
            for _ in range(QUESTIONS):
                item, relation = f"item-{draw.randrange(items)}", f"relation-{draw.randrange(1, number)}"
                began = process_time()
                assert len(reader.neighbours(item, relation, similarity, 10)) == 10
                times.append(process_time() - began)
        after = memory()
    return {
        "open_cpu_s": opened,
        "precomputed_cpu_ms": 1e3 * median(took[Similarity.AVG]),
        "search_cpu_ms": 1e3 * median(took[Similarity.TT]),
        "memory_opened": idle["Pss"] - before["Pss"],
        "memory_after_questions": after["Pss"] - before["Pss"],
        "memory_private": after["Private_Dirty"] - before["Private_Dirty"],
    }


def memory() -> dict[str, int]:
    """Return the bytes of memory of this process by kind; Pss includes mapped files."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    return {name: 1024 * int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
