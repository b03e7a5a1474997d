"""Full-catalogue ranking of an evaluation: `python -m benchmarks.catalogue [--quick]`.

Random unit vectors stand for 100,000 items under 10 relations, in both modalities. As many queries as an evaluation
asks at most are ranked against all items, and the places of their partners are found. The reference sorts all scores of
a query, as a straightforward implementation would; it is timed on some of the queries. The peak is the largest resident
memory of the process.
"""

import argparse
import resource
import time

import numpy as np

from benchmarks.rig.measurement import interleave, milliseconds
from benchmarks.rig.results import conclude, show
from model.config import EvaluateConfig
from model.data.edge_table import EdgeTable
from model.embeddings.encoding import Encoding, unit_rows
from model.evaluation.full_catalogue import CatalogueQueries, rank_catalogue
from model.evaluation.scoring import MAX_BLOCK_SCORES, NetworkScorer, blocks
from model.similarity import Similarity

QUERIES: int = EvaluateConfig.model_fields["max_queries"].default
COMPARED = 256
"""Number of queries in each timed run of the comparison."""


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few items and queries, to try the benchmark")
    quick = parser.parse_args().quick
    items, relations, dim, asked = (2_000, 3, 16, 200) if quick else (100_000, 10, 128, QUERIES)

    rng = np.random.default_rng(0)
    text, image = (
        unit_rows(rng.standard_normal((items, relations, dim), np.float32), 1e-6) for _ in range(2)
    )
    scorer = NetworkScorer(Encoding(text, image), Similarity.AVG)
    edges = EdgeTable(
        rng.integers(0, items, asked), rng.integers(0, items, asked), rng.integers(0, relations, asked)
    )
    queries = CatalogueQueries.of(
        edges.take(np.flatnonzero(edges.a != edges.b)), np.arange(items), asked, rng
    )
    few = CatalogueQueries.of(edges.take(np.flatnonzero(edges.a != edges.b)), np.arange(items), COMPARED, rng)

    def sort_scores() -> None:
        for relation, rows in blocks(few.relation, items, MAX_BLOCK_SCORES):
            for row, scores in zip(rows, scorer.scores(few.item[rows], relation, few.catalogue), strict=True):
                places = np.empty(items, np.int64)
                places[np.argsort(-scores, kind="stable")] = np.arange(items)
                places[few.partner[few.starts[row] : few.starts[row + 1]]].min()

    timings = interleave(
        {"counted": lambda: rank_catalogue(scorer, few), "sorted": sort_scores}, rounds=2 if quick else 5
    )
    start = time.perf_counter()
    rank_catalogue(scorer, queries)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    show(
        f"{items:,} candidates, {relations} relations; {len(few)} queries",
        ["ranking", "median ms", "quartiles"],
        [[side, *milliseconds(timings, side)] for side in ("counted", "sorted")],
    )
    print(f"{len(queries):,} queries took {seconds:.1f} s; peak of the process {peak:.2f} GB")
    conclude(
        {
            "speedup_vs_sorting": timings.ratio("sorted", "counted"),
            "queries": len(queries),
            "seconds": seconds,
            "peak_gb": peak,
        }
    )


if __name__ == "__main__":
    main()
