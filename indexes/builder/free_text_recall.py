"""Measurement of the search under free-text relations, when the tokens of a generation are written.

The trained relations are treated as free text: items are scored exactly under some of them, from their tokens, for some
items as queries and all similarities. The number of candidates is the least that contains the wanted share of the ten
best items under each similarity.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from indexes.storage.free_text_report import MIN_CANDIDATES, FreeTextReport, read_probes
from indexes.storage.tokens import TokenStore
from indexes.vectors.contract import cosines
from model.embeddings.encoder_protocol import ItemEncoder
from model.embeddings.encoding import average
from model.embeddings.free_text import FLOAT32_CHUNK_ITEMS, FreeTextRelation
from model.similarity import Similarity, View

PROBES = 4
"""Number of relations to measure with."""

QUERIES = 24
"""Number of items that are queries under each relation."""

DEPTH = 10
"""Number of best items to find."""

CANDIDATES = (MIN_CANDIDATES, 120, 160, 240, 320, 480, 640)
"""Numbers of candidates to choose from. With 640 candidates of 70 KB, a search reads 45 MB of tokens."""

MAX_GROWTH = 0.1
"""Change in the number of items, as a share, up to which a compaction keeps the report."""


def choose_probes(encoder: ItemEncoder) -> list[FreeTextRelation]:
    """Return free-text forms of some trained relations, spread evenly over their list."""
    others = [relation for relation in encoder.relations if not relation.intra]
    places = sorted({round(place) for place in np.linspace(0, len(others) - 1, PROBES)}) if others else []
    return [encoder.read_relation(others[place].description) for place in places]


def write_report(folder: Path, probes: Sequence[FreeTextRelation], min_recall: float) -> None:
    """Measure the tokens in `folder` and write the report.

    Raises:
        OSError: the disk is full or failing.
    """
    measure(TokenStore(folder), probes, min_recall).write(folder, probes)


def carry_report(folder: Path, old: Path, min_recall: float) -> None:
    """Write the report on the tokens in `folder`, which replace those in `old`.

    The tokens are measured again if the number of items changed by more than `MAX_GROWTH`.

    Raises:
        OSError: the disk is full or failing.
    """
    probes, before, store = read_probes(old), FreeTextReport.read(old), TokenStore(folder)
    if abs(len(store.tokens.text) - before.items) <= MAX_GROWTH * before.items:
        before.write(folder, probes)
    elif probes:
        measure(store, probes, min_recall).write(folder, probes)


def measure(store: TokenStore, probes: Sequence[FreeTextRelation], min_recall: float) -> FreeTextReport:
    """Choose the number of candidates, and report the share of the ten best items that they contain."""
    items = len(store.tokens.text)
    sizes = [size for size in CANDIDATES if size < items]
    if not sizes or not probes:  # such searches score every item
        return FreeTextReport(items=items)
    drawn = np.sort(np.random.default_rng(0).choice(items, min(QUERIES, items), replace=False))
    shares: dict[Similarity, list[Float32[ndarray, "queries sizes"]]] = {one: [] for one in Similarity}
    for probe in probes:
        for similarity, share in found_shares(store, probe, drawn, sizes).items():
            shares[similarity].append(share)
    means = [np.concatenate(each).mean(axis=0) for each in shares.values() if any(map(len, each))]
    lowest = np.min(means, axis=0) if means else np.ones(len(sizes))
    place = next((place for place, share in enumerate(lowest) if share >= min_recall), None)
    return FreeTextReport(
        items=items,
        probes=len(probes),
        candidates=None if place is None else sizes[place],
        overlap_at_10=round(float(lowest[-1 if place is None else place]), 4),
    )


def found_shares(
    store: TokenStore, probe: FreeTextRelation, drawn: Int64[ndarray, " queries"], sizes: Sequence[int]
) -> dict[Similarity, Float32[ndarray, "queries sizes"]]:
    """Return, for each query with the views that a similarity compares, the share found with each of `sizes`."""
    queries = _views(store, probe, drawn)
    tenth = _tenth_best(store, probe, drawn, queries)
    shares = {}
    for similarity in Similarity:
        query_view, target = similarity.views
        rows = []
        for place, row in enumerate(drawn):
            query = queries[query_view][place]
            if not query.any():
                continue
            found = store.estimates(probe, target).best(query, sizes[-1] + 1).rows
            found = found[found != row][: sizes[-1]]
            scores = cosines(probe.view(store.tokens, target, found), query)
            # An item whose score ties with the tenth best counts as found.
            hits = np.cumsum(scores >= tenth[similarity][place] - 1e-6)
            rows.append([min(hits[min(size, len(hits)) - 1], DEPTH) / DEPTH for size in sizes])
        shares[similarity] = np.asarray(rows, np.float32).reshape(-1, len(sizes))
    return shares


def _tenth_best(
    store: TokenStore,
    probe: FreeTextRelation,
    drawn: Int64[ndarray, " queries"],
    queries: dict[View, Float32[ndarray, "queries dim"]],
) -> dict[Similarity, Float32[ndarray, " queries"]]:
    """Score all items exactly, and return the tenth best score for each query, without the query itself."""
    best = {one: np.full((len(drawn), DEPTH), -2.0, np.float32) for one in Similarity}
    items = len(store.tokens.text)
    for start in range(0, items, FLOAT32_CHUNK_ITEMS):
        rows = np.arange(start, min(start + FLOAT32_CHUNK_ITEMS, items))
        views = _views(store, probe, rows)
        itself = drawn[:, None] == rows
        for similarity in Similarity:
            query_view, target = similarity.views
            scores = np.where(itself, -2.0, queries[query_view] @ views[target].T).astype(np.float32)
            both = np.hstack([best[similarity], scores])
            best[similarity] = -np.partition(-both, DEPTH - 1)[:, :DEPTH]
    return {similarity: scores.min(axis=1) for similarity, scores in best.items()}


def _views(
    store: TokenStore, probe: FreeTextRelation, rows: Int64[ndarray, " rows"]
) -> dict[View, Float32[ndarray, "rows dim"]]:
    text, image = probe.vectors(store.tokens.text.take(rows)), probe.vectors(store.tokens.image.take(rows))
    return {View.TEXT: text, View.IMAGE: image, View.AVERAGE: average(text, image, probe.text_share)}
