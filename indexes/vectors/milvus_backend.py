"""Milvus vector backend, for indexes that outgrow one machine: one collection for each generation.

    vectors/
      milvus.json   location of the vectors: `uri`, `collection`, `count`, `dim`, `relations`

The collection has a partition for each relation and a vector field for each view. The vectors are rounded to half
precision, as in files. The Milvus index is FLAT, which scans: every search is exact, and the server applies the
filters. The primary key is the position of the relation times 2^32, plus the catalogue row, because Milvus requires
unique keys across partitions. The fields have single precision because milvus-lite, which the tests use, does not
support half precision.

A collection is written before the generation that refers to it is published. A note file next to the generations
contains the name of the collection. The note is written before the collection is created and removed after the
collection is dropped. `drop_unused` can therefore find an unused collection even if the process that created it was
killed.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from model.plain_file import read_model
from model.similarity import View

from .contract import FileReport, Neighbours, RoughNeighbours, Source, cosines, file_name, widened
from .milvus_collections import (
    KEY_FIELD,
    MILVUS_FILE,
    REQUEST_TIMEOUT_S,
    ROWS_PER_RELATION,
    Note,
    Place,
    collection_name,
    connect,
    count_rows,
    create_collection,
    partition_name,
    server_errors,
    unlike,
    write_note,
)

MAX_FILTER_ROWS = 10_000
"""Maximum number of rows that a filter lists."""


MAX_MILVUS_RESULTS = 16_384
"""Maximum number of results that Milvus returns for a search."""


MAX_MESSAGE_BYTES = 32 * 2**20
"""Maximum size in bytes of the vectors in one message."""


class MilvusVectors:
    """`VectorIndex` over a Milvus collection; safe to search from many threads."""

    def __init__(self, folder: Path) -> None:
        """Open and load the collection that the file `milvus.json` in `folder` refers to.

        Raises:
            ArtifactError: the collection does not exist, or has another shape or number of vectors.
            UnreachableError: the server does not answer.
            InputError: pymilvus is not installed.
        """
        self._place = read_model(Place, folder / MILVUS_FILE)
        self._client = connect(self._place.uri)
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        place = self._place
        with server_errors(place.uri):
            found = self._client.has_collection(place.collection, timeout=REQUEST_TIMEOUT_S) and self._shape()
            expected = dict.fromkeys(map(str, View), place.dim)
            if found != expected:
                raise unlike(
                    place, f"has vector fields {found}, not {expected}" if found else "does not exist"
                )
            self._client.load_collection(place.collection)
            count = self.count_rows()
        if count != place.count * place.relations:
            raise unlike(
                place, f"has {count:,} rows, not {place.count:,} for each of {place.relations} relations"
            )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    @property
    def count(self) -> int:
        """Number of items."""
        return self._place.count

    @property
    def dim(self) -> int:
        """Number of components of every vector."""
        return self._place.dim

    @property
    def report(self) -> dict[str, FileReport]:
        """Reports on each relation and view, with row counts queried from the server."""
        with server_errors(self._place.uri):
            counts = [self.count_rows(relation) for relation in range(self._place.relations)]
        return {
            file_name(relation, view): FileReport(kind="flat", items=count, bytes_per_vector=4.0 * self.dim)
            for relation, count in enumerate(counts)
            for view in View
        }

    @property
    def device(self) -> str:
        """Name the server."""
        return f"vectors are searched by Milvus at {self._place.uri}"

    def copy_to_gpus(self) -> None:
        """Do nothing: the server has the vectors."""

    def scan(
        self, relation: int, view: View, queries: Float32[ndarray, "queries dim"], k: int
    ) -> RoughNeighbours | None:
        """Return None: to send many queries to the server takes longer than to multiply the vectors here."""
        return None

    def vectors(self, relation: int, view: View, rows: Sequence[int]) -> Float32[ndarray, "rows dim"]:
        """Return the stored vectors of the items at `rows`, rounded to half precision.

        Raises:
            ArtifactError: the collection lacks some of the vectors.
            UnreachableError: the server does not answer.
        """
        found: dict[int, ndarray] = {}
        wanted = sorted({int(row) for row in rows})
        for start in range(0, len(wanted), self._chunk):
            keys = [relation * ROWS_PER_RELATION + row for row in wanted[start : start + self._chunk]]
            with server_errors(self._place.uri):
                entities = self._client.query(
                    self._place.collection,
                    ids=keys,
                    output_fields=[KEY_FIELD, view.value],
                    partition_names=[partition_name(relation)],
                    timeout=REQUEST_TIMEOUT_S,
                )
            found.update(
                (entity[KEY_FIELD] % ROWS_PER_RELATION, _vector(entity[view.value])) for entity in entities
            )
        if len(found) != len(wanted):
            raise unlike(self._place, f"lacks {len(wanted) - len(found)} of {len(wanted)} requested vectors")
        return (
            np.stack([found[int(row)] for row in rows]) if len(rows) else np.empty((0, self.dim), np.float32)
        )

    def search(
        self,
        relation: int,
        view: View,
        query: Float32[ndarray, " dim"],
        k: int,
        allowed: Bool[ndarray, " count"] | None = None,
        dropped: frozenset[int] = frozenset(),
    ) -> Neighbours:
        """Find the `k` nearest items exactly; see `VectorIndex.search`.

        Raises:
            UnreachableError: the server does not answer.
        """
        mask = None
        if allowed is not None or dropped:
            mask = np.ones(self.count, bool) if allowed is None else allowed.copy()
            mask[list(dropped)] = False
        few = self.count if mask is None else int(np.count_nonzero(mask))
        if min(k, few) == 0:
            return Neighbours(np.empty(0, np.int64), np.empty(0, np.float32))
        vectors: dict[int, ndarray] = {}

        def find(depth: int) -> Neighbours | None:
            found = self._nearest(relation, view, query, depth, mask, few)
            if found is None:
                return None
            vectors.update(zip(found[0].rows.tolist(), found[1], strict=True))
            return found[0]

        rough = widened(find, min(k, few), few)
        if rough is None:
            return self._scan(relation, view, query, k, mask)
        stored = np.stack([vectors[row] for row in rough.rows.tolist()])
        return Neighbours.best(rough.rows, cosines(stored, query), min(k, few))

    def _nearest(
        self, relation: int, view: View, query: ndarray, depth: int, mask: ndarray | None, few: int
    ) -> tuple[Neighbours, list[ndarray]] | None:
        """Find the `depth` nearest rows in `mask` and their vectors; None if the server cannot return so many."""
        condition, passed = _condition(relation, mask, few)
        most = min(MAX_MILVUS_RESULTS, 2 * self._chunk, self.count)
        if depth > most:
            return None
        asked = min(depth if passed is None else math.ceil(1.2 * depth * self.count / few), most)
        while True:
            with server_errors(self._place.uri):
                (hits,) = self._client.search(
                    self._place.collection,
                    data=[query],
                    anns_field=view.value,
                    filter=condition,
                    limit=asked,
                    output_fields=[view.value],
                    partition_names=[partition_name(relation)],
                    search_params={"metric_type": "IP"},
                    timeout=REQUEST_TIMEOUT_S,
                )
            rows = np.fromiter((hit[KEY_FIELD] % ROWS_PER_RELATION for hit in hits), np.int64, len(hits))
            if len(rows) < min(asked, self.count if passed is not None else few):
                raise unlike(self._place, f"returned {len(rows)} results for a limit of {asked}")
            kept = np.flatnonzero(passed[rows]) if passed is not None else np.arange(len(rows))
            if len(kept) >= depth or asked == self.count:
                found = [hits[place] for place in kept[:depth].tolist()]
                scores = np.array([hit["distance"] for hit in found], np.float32)
                vectors = [_vector(hit["entity"][view.value]) for hit in found]
                return Neighbours(rows[kept[:depth]], scores), vectors
            if asked == most:
                return None
            asked = min(2 * asked, most)

    def _scan(self, relation: int, view: View, query: ndarray, k: int, mask: ndarray | None) -> Neighbours:
        """Find the `k` nearest rows by a local scan, if Milvus cannot return enough results."""
        best = Neighbours(np.empty(0, np.int64), np.empty(0, np.float32))
        rows = np.arange(self.count) if mask is None else np.flatnonzero(mask)
        for start in range(0, len(rows), self._chunk):
            chunk = rows[start : start + self._chunk]
            scores = cosines(self.vectors(relation, view, chunk.tolist()), query)
            best = Neighbours.best(
                np.concatenate([best.rows, chunk]), np.concatenate([best.scores, scores]), k
            )
        return best

    @property
    def _chunk(self) -> int:
        """Number of vectors of one view that fit into one message."""
        return min(MAX_FILTER_ROWS, max(1, MAX_MESSAGE_BYTES // (4 * self.dim)))

    def _shape(self) -> dict[str, int]:
        """Return the vector fields of the collection and their dimensions."""
        described = self._client.describe_collection(self._place.collection, timeout=REQUEST_TIMEOUT_S)
        return {
            one["name"]: int(one["params"]["dim"]) for one in described["fields"] if "dim" in one["params"]
        }

    def count_rows(self, relation: int | None = None) -> int:
        """Count the rows of one relation, or of the whole collection."""
        return count_rows(self._client, self._place.collection, relation)


def write_milvus(
    folder: Path,
    generation: Path,
    uri: str,
    relations: int,
    dim: int,
    source: Source,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Fill a collection for `generation`, create `folder`, and record the collection in it.

    `source` must yield chunks of the same rows for all views of a relation. `advance` is called once per relation and
    view.

    Raises:
        ArtifactError: the server did not store all vectors.
        UnreachableError: the server does not answer, or rejects a request.
        InputError: pymilvus is not installed.
    """
    collection = collection_name(generation)
    write_note(generation, Note(uri=uri, collection=collection))
    counts = []
    with closing(connect(uri)) as client, server_errors(uri):
        create_collection(client, collection, dim)
        for relation in range(relations):
            client.create_partition(collection, partition_name(relation))
            counts.append(0)
            for batch in _batches(relation, source, dim):
                client.insert(
                    collection, batch, partition_name=partition_name(relation), timeout=REQUEST_TIMEOUT_S
                )
                counts[-1] += len(batch)
            for _ in View:
                advance()
        client.flush(collection)
        client.load_collection(collection)
        kept = [count_rows(client, collection, relation) for relation in range(relations)]
    place = Place(uri=uri, collection=collection, count=counts[0], dim=dim, relations=relations)
    if kept != [place.count] * relations:
        raise unlike(place, f"has {kept} rows per relation, but {counts} were inserted")
    folder.mkdir()
    (folder / MILVUS_FILE).write_text(place.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _condition(relation: int, mask: ndarray | None, few: int) -> tuple[str, ndarray | None]:
    """Return a filter expression that selects the `few` rows in `mask`, and a mask to apply to the results.

    The returned mask is None unless the expression would list too many rows. In that case, the expression is empty, and
    the caller must apply the mask.
    """
    if mask is None:
        return "", None
    if few <= MAX_FILTER_ROWS:
        return f"{KEY_FIELD} in {_keys(relation, np.flatnonzero(mask))}", None
    if len(mask) - few <= MAX_FILTER_ROWS:
        left_out = np.flatnonzero(~mask)
        return f"{KEY_FIELD} not in {_keys(relation, left_out)}" if len(left_out) else "", None
    return "", mask


def _keys(relation: int, rows: ndarray) -> list[int]:
    keys: list[int] = (rows.astype(np.int64) + relation * ROWS_PER_RELATION).tolist()
    return keys


def _batches(relation: int, source: Source, dim: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a relation with all views, in batches that fit into one message."""
    size = max(1, MAX_MESSAGE_BYTES // (4 * dim * len(View)))
    row = relation * ROWS_PER_RELATION
    for chunks in zip(*(source(relation, view) for view in View), strict=True):
        views = [np.asarray(chunk).astype(np.float16).astype(np.float32) for chunk in chunks]
        for start in range(0, len(views[0]), size):
            parts = zip(*(view[start : start + size] for view in views), strict=True)
            batch = [
                {KEY_FIELD: row + place, **{view.value: one for view, one in zip(View, vectors, strict=True)}}
                for place, vectors in enumerate(parts)
            ]
            row += len(batch)
            yield batch


def _vector(found: Any) -> Float32[ndarray, " dim"]:
    return np.asarray(found, np.float32)
