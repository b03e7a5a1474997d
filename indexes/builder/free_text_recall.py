"""Measurement of the search under free-text relations, when the tokens of a generation are written.

The trained relations are treated as free text: items are scored exactly under some of them, from their tokens, for some
items as queries and all similarities. The low-rank projections get as few components, and a search as few candidates,
as are needed to find the wanted share of the ten best items under each similarity.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from indexes.storage.free_text_report import MIN_CANDIDATES, FreeTextReport, read_probes
from indexes.storage.tokens import COMPONENTS, TokenStore, write_projections
from indexes.vectors.contract import cosines
from indexes.vectors.faiss_threads import thread_per_core
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
"""Numbers of candidates to choose from."""

MAX_CANDIDATE_BYTES = 2**24
"""Bytes of tokens to score exactly in a search; more components are preferred to more. 16 MiB take about 15 ms."""

MAX_GROWTH = 0.1
"""Change in the number of items, as a share, up to which a compaction keeps the report."""


def choose_probes(encoder: ItemEncoder) -> list[FreeTextRelation]:
    """Return free-text forms of some trained relations, spread evenly over their list."""
    others = [relation for relation in encoder.relations if not relation.intra]
    places = sorted({round(place) for place in np.linspace(0, len(others) - 1, PROBES)}) if others else []
    return [encoder.read_relation(others[place].description) for place in places]


def write_report(folder: Path, probes: Sequence[FreeTextRelation], min_recall: float) -> None:
    """Choose the projections of the tokens in `folder` and the number of candidates, and write the report.

    Raises:
        OSError: the disk is full or failing.
    """
    store = TokenStore(folder)
    items = len(store.tokens.text)
    sizes = [size for size in CANDIDATES if size < items]
    few = MAX_CANDIDATE_BYTES / max(store.bytes_per_item, 1)
    report = FreeTextReport(items=items)
    if sizes and probes:  # otherwise every search scores all items
        measured = [MeasuredRelation.of(store, probe) for probe in probes]
        for components in COMPONENTS:
            if components > COMPONENTS[0]:
                write_projections(folder, components)
                store = TokenStore(folder)
            report = _chosen(store, measured, sizes, min_recall)
            enough = report.candidates is not None and report.candidates <= max(few, MIN_CANDIDATES)
            if enough or components >= store.tokens.text.states.shape[1]:
                break
    report.write(folder, probes)


def carry_report(folder: Path, old: Path, min_recall: float) -> None:
    """Write the report on the tokens in `folder`, which replace those in `old`.

    The tokens are measured again if the number of items changed by more than `MAX_GROWTH`. Otherwise the projections
    get as many components as before.

    Raises:
        OSError: the disk is full or failing.
    """
    before, store = FreeTextReport.read(old), TokenStore(folder)
    if not before.items:  # an earlier version built the index
        write_projections(folder, TokenStore(old).components)
    elif abs(len(store.tokens.text) - before.items) > MAX_GROWTH * before.items:
        write_report(folder, read_probes(old), min_recall)
    else:
        if TokenStore(old).components != store.components:
            write_projections(folder, TokenStore(old).components)
        before.write(folder, read_probes(old))


def _chosen(
    store: TokenStore, measured: Sequence["MeasuredRelation"], sizes: Sequence[int], min_recall: float
) -> FreeTextReport:
    """Choose the number of candidates, and report the share of the ten best items that they contain."""
    shares = [one.found_shares(store, sizes) for one in measured]
    means = [
        np.concatenate([share[similarity] for share in shares])
        for similarity in Similarity
        if any(len(share[similarity]) for share in shares)
    ]
    lowest = np.min([each.mean(axis=0) for each in means], axis=0) if means else np.ones(len(sizes))
    place = next((place for place, share in enumerate(lowest) if share >= min_recall), None)
    return FreeTextReport(
        items=len(store.tokens.text),
        probes=len(measured),
        candidates=None if place is None else sizes[place],
        overlap_at_10=round(float(lowest[-1 if place is None else place]), 4),
    )


@dataclass(frozen=True)
class MeasuredRelation:
    """Relation, items as queries, their vectors, and the tenth best score of each under each similarity."""

    relation: FreeTextRelation
    rows: Int64[ndarray, " queries"]
    queries: dict[View, Float32[ndarray, "queries dim"]]
    tenth: dict[Similarity, Float32[ndarray, " queries"]]

    @classmethod
    def of(cls, store: TokenStore, relation: FreeTextRelation) -> "MeasuredRelation":
        """Score all items exactly."""
        items = len(store.tokens.text)
        rows = np.sort(np.random.default_rng(0).choice(items, min(QUERIES, items), replace=False))
        queries = _views(store, relation, rows)
        return cls(relation, rows, queries, _tenth_best(store, relation, rows, queries))

    def found_shares(
        self, store: TokenStore, sizes: Sequence[int]
    ) -> dict[Similarity, Float32[ndarray, "queries sizes"]]:
        """Return, for each query that has the view of a similarity, the share found with each of `sizes`."""
        shares = {}
        with thread_per_core() as pool:
            for similarity in Similarity:
                query_view, target = similarity.views
                places = np.flatnonzero(self.queries[query_view].any(axis=1)).tolist()
                found = list(pool.map(partial(self._found, store, similarity, target, sizes), places))
                shares[similarity] = np.asarray(found, np.float32).reshape(-1, len(sizes))
        return shares

    def _found(
        self, store: TokenStore, similarity: Similarity, target: View, sizes: Sequence[int], place: int
    ) -> list[float]:
        """Return the share of the ten best items of one query that each of `sizes` candidates contain."""
        query = self.queries[similarity.views[0]][place]
        rows = store.estimates(self.relation, target).best(query, sizes[-1] + 1).rows
        rows = rows[rows != self.rows[place]][: sizes[-1]]
        scores = cosines(self.relation.view(store.tokens, target, rows), query)
        # An item whose score ties with the tenth best counts as found.
        hits = np.cumsum(scores >= self.tenth[similarity][place] - 1e-6)
        return [min(hits[min(size, len(hits)) - 1], DEPTH) / DEPTH for size in sizes]


def _tenth_best(
    store: TokenStore,
    relation: FreeTextRelation,
    drawn: Int64[ndarray, " queries"],
    queries: dict[View, Float32[ndarray, "queries dim"]],
) -> dict[Similarity, Float32[ndarray, " queries"]]:
    """Score all items exactly, and return the tenth best score for each query, without the query itself."""
    items = len(store.tokens.text)

    def best_of_chunk(start: int) -> dict[Similarity, Float32[ndarray, "queries depth"]]:
        rows = np.arange(start, min(start + FLOAT32_CHUNK_ITEMS, items))
        views = _views(store, relation, rows)
        itself = drawn[:, None] == rows
        best = {}
        for similarity in Similarity:
            query_view, target = similarity.views
            scores = np.where(itself, -2.0, queries[query_view] @ views[target].T).astype(np.float32)
            best[similarity] = _greatest(scores)
        return best

    with thread_per_core() as pool:
        parts = list(pool.map(best_of_chunk, range(0, items, FLOAT32_CHUNK_ITEMS)))
    return {one: _greatest(np.hstack([part[one] for part in parts])).min(axis=1) for one in Similarity}


def _greatest(scores: Float32[ndarray, "queries some"]) -> Float32[ndarray, "queries depth"]:
    """Return the ten greatest scores of each query in any order, or all if there are fewer."""
    few = min(DEPTH, scores.shape[1])
    return np.asarray(-np.partition(-scores, few - 1)[:, :few])


def _views(
    store: TokenStore, relation: FreeTextRelation, rows: Int64[ndarray, " rows"]
) -> dict[View, Float32[ndarray, "rows dim"]]:
    text, image = (
        relation.vectors(store.tokens.text.take(rows)),
        relation.vectors(store.tokens.image.take(rows)),
    )
    return {View.TEXT: text, View.IMAGE: image, View.AVERAGE: average(text, image, relation.text_share)}
