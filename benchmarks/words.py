"""Free-text relation search compared with brute force: `python -m benchmarks.words [--quick] [--index DIR ...]`.

The query items belong to an index that stores tokens, and the relations are not indexed. The search of the service is
timed twice: for the first query under a relation, which computes low-rank estimates of the vectors of all items, and
for later queries, which reuse the estimates. Brute force scores all items from their tokens. Encoding the description
of a relation is not timed, because it takes the same time in each case. Times are CPU times of one thread.

Without `--index` a sample shop of 6,000 items is generated, trained on and indexed first, which takes minutes.

With `--items N` the catalogue is synthetic; see `benchmarks/rig/words_at_scale.py`.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.rig import words_at_scale
from benchmarks.rig.results import conclude, show
from indexes.index import Index
from indexes.live.snapshot import Snapshot
from indexes.search.free_text_search import FreeTextSearch
from indexes.vectors.contract import Neighbours, cosines
from model.embeddings.free_text import FreeTextRelation
from model.encoder.encoder import Encoder
from model.malloc import keep_freed_memory
from model.similarity import Similarity
from service.demo import make_all
from service.settings import DemoConfig

K = 10

RELATIONS = (
    "Bought together by cyclists.",
    "Things of the same colour.",
    "Worn together at the office.",
    "Gifts for people who love gardens.",
    "Chosen by people who primarily like War, followed by Romance.",
    "Co-purchased by people who primarily buy Camping, followed by Beach.",
    "Sequels, and what else is by the same people.",
    "What one needs first with a new baby.",
)
"""Descriptions of relations on which no network was trained."""


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--index", type=Path, nargs="*", help="folders written by `rcml index build --token-store`"
    )
    parser.add_argument("--queries", type=int, default=25, help="query items under each relation")
    parser.add_argument("--items", type=int, help="number of items of a synthetic catalogue")
    parser.add_argument("--dim", type=int, default=512, help="components of synthetic tokens")
    parser.add_argument(
        "--words", type=int, default=10, help="mean number of words of a synthetic text, at least 5"
    )
    parser.add_argument("--patches", type=int, default=10, help="patches of a synthetic picture")
    parser.add_argument(
        "--logit-sd", type=float, default=2.0, help="how much synthetic relations prefer some tokens"
    )
    parser.add_argument(
        "--probes", type=int, default=2, help="relations that are measured when tokens are written"
    )
    parser.add_argument("--relations", type=int, default=3, help="synthetic relations to query")
    parser.add_argument(
        "--folder", type=Path, help="folder that keeps synthetic tokens; none: they are removed"
    )
    parser.add_argument("--quick", action="store_true", help="use a tiny shop, to check that it runs")
    options = parser.parse_args()
    if options.items:
        words_at_scale.main(options)
        return
    keep_freed_memory()
    torch.set_num_threads(1)
    threadpool_limits(1)
    queries = 3 if options.quick else options.queries
    with TemporaryDirectory() as folder:
        paths = options.index or [make_index(Path(folder) / "shop", options.quick)]
        rows = [row for path in paths for row in measure(path, queries)]
    show(
        "free-text relations, one thread, CPU time",
        ("", "items", "overlap@10", "first ms", "later ms", "brute force ms", "first ratio", "later ratio"),
        [
            [
                f"{row['index']}, {row['similarity']}",
                f"{row['items']:,}",
                f"{row['overlap_at_10']:.3f}",
                *(f"{row[key]:.1f}" for key in ("ms", "again_ms", "brute_force_ms")),
                *(f"{row[key]:.3f}" for key in ("share", "again_share")),
            ]
            for row in rows
        ],
    )
    conclude({"rows": rows})


def make_index(out: Path, quick: bool) -> Path:
    """Generate a sample shop, train on it, and index it with its tokens."""
    items, shoppers, steps = (300, 600, 2) if quick else (6_000, 20_000, 100)
    make_all(DemoConfig(out=out, items=items, shoppers=shoppers, steps=steps))
    return out / "index"


def measure(path: Path, queries: int) -> list[dict[str, Any]]:
    """Measure one index and return one row per similarity."""
    index = Index.open(path)
    encoder = Encoder.from_pretrained(index.checkpoint.path, "cpu")
    relations = [encoder.read_relation(words) for words in RELATIONS]
    snapshot = index.snapshot
    drawn = np.random.default_rng(0).choice(len(snapshot), queries, replace=False).tolist()
    rows = []
    rng = np.random.default_rng(1)
    for similarity in Similarity:
        asked = [(relation, row) for relation in relations for row in drawn]
        overlaps: list[float] = []
        sides: dict[str, list[float]] = {"first": [], "again": [], "brute force": []}
        for place, (relation, row) in enumerate(asked):
            best, found = (of(snapshot, relation, similarity, row) for of in (brute_force, search))
            # A result whose score ties with the tenth best counts as found.
            overlaps.append(float((found.scores >= best.scores[-1] - 1e-6).mean()))
            if place % 5 == 0:
                calls: dict[str, Callable[[], object]] = {
                    "first": partial(search, snapshot, replace(relation), similarity, row),
                    "again": partial(search, snapshot, relation, similarity, row),
                    "brute force": partial(brute_force, snapshot, relation, similarity, row),
                }
                for side in rng.permutation(list(sides)).tolist():
                    sides[side].append(_processor_seconds(calls[side]))
        medians = {side: float(np.median(seconds)) for side, seconds in sides.items()}
        shares = {
            side: float(np.median(np.divide(sides[side], sides["brute force"])))
            for side in ("first", "again")
        }
        rows.append(
            {
                "index": path.parent.name,
                "items": len(snapshot),
                "similarity": similarity.value,
                "overlap_at_10": round(float(np.mean(overlaps)), 4),
                "ms": round(1e3 * medians["first"], 2),
                "again_ms": round(1e3 * medians["again"], 2),
                "brute_force_ms": round(1e3 * medians["brute force"], 2),
                "share": round(shares["first"], 4),
                "again_share": round(shares["again"], 4),
            }
        )
    index.close()
    return rows


def _processor_seconds(call: Callable[[], object]) -> float:
    """Return the CPU seconds that `call` takes in this process; other work on the machine does not count."""
    started = process_time()
    call()
    return process_time() - started


def search(snapshot: Snapshot, relation: FreeTextRelation, similarity: Similarity, row: int) -> Neighbours:
    """Search as the service does."""
    query_view, target_view = similarity.views
    query = snapshot.vectors(relation, query_view, [row])[0]
    return FreeTextSearch(snapshot, relation, target_view, query, excluded=frozenset({row})).best(K)


def brute_force(
    snapshot: Snapshot, relation: FreeTextRelation, similarity: Similarity, row: int
) -> Neighbours:
    """Score all items from their tokens."""
    query_view, target_view = similarity.views
    query = snapshot.vectors(relation, query_view, [row])[0]
    rows = np.delete(np.arange(snapshot.end), row)
    return Neighbours.best(rows, cosines(snapshot.vectors(relation, target_view, rows.tolist()), query), K)


if __name__ == "__main__":
    main()
