"""Free-text relations on synthetic catalogues of any size: `python -m benchmarks.words --items N`.

The tokens are written as by `rcml index build`, which also measures how many candidates a search needs. The table then
shows other relations than those of that measurement: the first query under a relation, further ones, and the share of
the ten best items that they find, compared with scoring every item.
"""

import resource
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from jaxtyping import Float32
from numpy import ndarray
from threadpoolctl import threadpool_limits

from benchmarks.rig.results import conclude, show
from benchmarks.rig.synthetic_tokens import Lengths, SyntheticTokens
from indexes.builder.free_text_recall import MeasuredRelation, write_report
from indexes.live.overlay import Overlay
from indexes.live.snapshot import Snapshot
from indexes.search.free_text_search import FreeTextSearch
from indexes.storage.generation import Generation
from indexes.storage.tokens import TokenStore, write_tokens
from model.embeddings.free_text import FreeTextRelation
from model.similarity import Similarity, View

K = 10

TEST_RELATIONS = 100
"""Number of the first relation that is not measured when the tokens are written."""


def main(options: Namespace) -> None:
    """Run the benchmark and print its results."""
    threadpool_limits(1, user_api="blas")  # as in `rcml serve`
    with TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        row = _measure(folder / f"tokens-{options.items}-{options.dim}", options)
    show(
        f"free-text relations, {row['items']:,} synthetic items, {row['dim']} components",
        ("", "value"),
        [[name.replace("_", " "), _written(value)] for name, value in row.items()],
    )
    conclude(row)


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {share:.3f}" for name, share in value.items())
    return f"{value:,.6g}" if isinstance(value, float) else str(value)


def _measure(folder: Path, options: Namespace) -> dict[str, Any]:
    lengths = Lengths((options.words - 4, options.words + 4), options.patches)
    synthetic = SyntheticTokens(options.dim, lengths, options.logit_sd)
    started = perf_counter()
    if not folder.exists():
        write_tokens(folder, options.dim, synthetic.chunks(options.items))
    written = perf_counter() - started
    probes = [synthetic.relation(number) for number in range(options.probes)]
    write_report(folder, probes, 0.95)
    measured = perf_counter() - started - written
    store = TokenStore(folder)
    relations = [synthetic.relation(TEST_RELATIONS + number) for number in range(options.relations)]
    snapshot = _snapshot(store, options.items, options.dim)
    drawn = np.sort(np.random.default_rng(1).choice(options.items, options.queries, replace=False))
    candidates = store.report.candidates_for(K)
    shares: dict[str, list[float]] = {similarity.value: [] for similarity in Similarity}
    if candidates is not None and candidates < options.items:
        for relation in relations:
            found = MeasuredRelation.of(store, relation).found_shares(store, [candidates])
            for similarity, share in found.items():
                shares[similarity.value].append(float(share.mean()))
    times = _times(snapshot, relations, drawn.tolist())
    tokens = len(store.tokens.text.states) + len(store.tokens.image.states)
    return {
        "items": options.items,
        "dim": options.dim,
        "tokens_per_item": tokens / options.items,
        "logit_sd": options.logit_sd,
        **{key: round(1e3 * median(values), 2) for key, values in times.items()},
        "overlap_at_10": {
            name: round(float(np.mean(each)) if each else 1.0, 4) for name, each in shares.items()
        },
        "candidates": candidates,
        "components": store.components,
        "measured_at_build": store.report.overlap_at_10,
        "mapped_mb": _mapped_bytes(folder) / 1e6,
        "estimates_mb": store.estimates(relations[0], View.AVERAGE).nbytes / 1e6,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "write_s": round(written, 1),
        "measure_s": round(measured, 1),
    }


def _mapped_bytes(folder: Path) -> int:
    """Return the size of the files that the first query under a relation reads."""
    return sum(path.stat().st_size for path in folder.glob("*.codes.npy"))


def _snapshot(store: TokenStore, items: int, dim: int) -> Snapshot:
    """Return a snapshot that has only tokens, which is all that such a search reads."""
    generation = cast(Generation, SimpleNamespace(tokens=store, vectors=SimpleNamespace(dim=dim)))
    return Snapshot(generation, Overlay.empty(items, 0, 1, 1))


def _times(snapshot: Snapshot, relations: list[FreeTextRelation], drawn: list[int]) -> dict[str, list[float]]:
    """Return seconds, by the clock and of CPU time, of first and further queries by AVG."""
    times: dict[str, list[float]] = {
        key: [] for key in ("first_ms", "first_cpu_ms", "further_ms", "further_cpu_ms")
    }
    for relation in relations:
        asked = replace(relation)  # a new object, for which nothing is computed yet
        for place, row in enumerate(drawn):
            wall, processor = perf_counter(), process_time()
            query: Float32[ndarray, " dim"] = snapshot.vectors(asked, View.AVERAGE, [row])[0]
            FreeTextSearch(snapshot, asked, View.AVERAGE, query, excluded=frozenset({row})).best(K)
            which = "first" if place == 0 else "further"
            times[f"{which}_ms"].append(perf_counter() - wall)
            times[f"{which}_cpu_ms"].append(process_time() - processor)
    return times
