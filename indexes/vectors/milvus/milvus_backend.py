"""Milvus vector backend, for indexes that outgrow one machine: three collections for each generation, one per view.

    vectors/
      milvus.json   location of the vectors, their number and shape, and what was measured when they were written

A collection has a partition for each relation. The vectors are rounded to half precision, as in files. The primary key
is the position of the relation times 2^32, plus the catalogue row, because Milvus requires unique keys across
partitions. The fields have single precision because milvus-lite and Milvus before 2.4 do not support half precision.

The index of a collection is one of two:

- `flat` scans: every search is exact, and the server applies the filters.
- `ivf-flat` divides the vectors into cells, and a search scans the cells nearest to the query. A search with a filter
  scans all cells, so it is exact as well. A graph (HNSW) has no such setting, so it is not offered.

Whatever Milvus finds is scored again with `cosines`. `milvus_writer.py` writes the collections.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from model.errors import UnreachableError
from model.similarity import View

from ..contract import FileReport, Filtered, Neighbours, RoughNeighbours, cosines, file_name, widened
from .milvus_collections import (
    KEY_FIELD,
    MAX_PREPARATION_ATTEMPTS,
    MAX_REQUEST_ATTEMPTS,
    MILVUS_FILE,
    PROBE_TIMEOUT_S,
    ROWS_PER_RELATION,
    VECTOR_FIELD,
    Place,
    connect,
    count_rows,
    limits,
    partition_name,
    read_options,
    server_errors,
    unlike,
)

MAX_CELLS = 65_536
"""Maximum number of cells that Milvus allows, and that a search can scan (`nlist`, `nprobe`).

A search that must be exact asks for so many, because a server may divide a part of a collection into other numbers of
cells than it was told: milvus-lite ignores `nlist`.
"""

MAX_FILTER_ROWS = 10_000
"""Maximum number of rows that a filter lists."""


MAX_MILVUS_RESULTS = 16_384
"""Maximum number of results that Milvus returns for a search."""


MAX_MESSAGE_BYTES = 32 * 2**20
"""Maximum size in bytes of the vectors in one message."""


class MilvusVectors:
    """`VectorIndex` over Milvus collections; safe to search from many threads.

    After an error of the server, the next read loads and counts the collections again. Until that succeeds, every read
    fails: a server that was restarted may have released the collections, or not loaded all of them yet.
    """

    def __init__(self, folder: Path) -> None:
        """Open and load the collections that the file `milvus.json` in `folder` refers to.

        Raises:
            ArtifactError: a collection does not exist, or has another shape or number of vectors; or an earlier
                version of rcml wrote it.
            UnreachableError: the server does not answer.
            InputError: pymilvus is not installed.
        """
        self._place = Place.read(folder / MILVUS_FILE)
        self._client = connect(self._place.uri)
        self._counted = False
        self._counting = Lock()
        try:
            self._check_collections({"retry_times": MAX_PREPARATION_ATTEMPTS})
        except BaseException:
            self.close()
            raise

    def _check_collections(self, load_options: Mapping[str, Any]) -> None:
        place = self._place
        expected = {VECTOR_FIELD: place.dim}
        with server_errors(place.uri):
            for view in View:
                name = place.view(view)
                if not self._client.has_collection(name, **limits()):
                    raise unlike(place, view, "does not exist")
                if (found := self._shape(name)) != expected:
                    raise unlike(place, view, f"has vector fields {found}, not {expected}")
            for view in View:
                self._client.load_collection(place.view(view), **load_options)
            for view in View:
                count = count_rows(self._client, place.view(view), None)
                if count != place.count * place.relations:
                    raise unlike(
                        place,
                        view,
                        f"has {count:,} rows, not {place.count:,} for each of {place.relations} relations",
                    )
        self._counted = True

    def _read(self, method: str, view: View, **options: Any) -> Any:
        """Call a method of the client that reads the collection of a view.

        Raises:
            UnreachableError: the server does not answer, or another thread is loading the collections again.
            ArtifactError: a collection is not the same any more.
        """
        if not self._counted:
            if not self._counting.acquire(blocking=False):
                raise UnreachableError(
                    f"Milvus at {self._place.uri} was unavailable, and its collections are being loaded again. Retry."
                )
            try:
                self._check_collections(limits())
            finally:
                self._counting.release()
        try:
            with server_errors(self._place.uri):
                return getattr(self._client, method)(self._place.view(view), **options)
        except UnreachableError:
            self._counted = False
            raise

    def check(self) -> None:
        """Check that the server answers.

        Raises:
            UnreachableError: the server does not answer.
        """
        self._read("get_load_state", View.TEXT, timeout=PROBE_TIMEOUT_S, retry_times=MAX_REQUEST_ATTEMPTS)

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
        reports = {}
        with server_errors(self._place.uri):
            for relation in range(self._place.relations):
                for view in View:
                    name = file_name(relation, view)
                    items = count_rows(self._client, self._place.view(view), relation, waits=relation == 0)
                    reports[name] = self._place.reports[name].model_copy(update={"items": items})
        return reports

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
            entities = self._read(
                "query",
                view,
                ids=keys,
                output_fields=[KEY_FIELD, VECTOR_FIELD],
                partition_names=[partition_name(relation)],
                **read_options(),
            )
            found.update(
                (entity[KEY_FIELD] % ROWS_PER_RELATION, _vector(entity[VECTOR_FIELD])) for entity in entities
            )
        if len(found) != len(wanted):
            lost = len(wanted) - len(found)
            raise unlike(self._place, view, f"lacks {lost} of {len(wanted)} requested vectors")
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
        """Find the `k` nearest items; see `VectorIndex.search`.

        If the cells that a search scans have too few items, it scans all cells.

        Raises:
            UnreachableError: the server does not answer.
        """
        mask = None
        if allowed is not None or dropped:
            mask = np.ones(self.count, bool) if allowed is None else allowed.copy()
            mask[list(dropped)] = False
        few = self.count if mask is None else int(np.count_nonzero(mask))
        filtered = None if allowed is None else Filtered(few, ("server",))
        if min(k, few) == 0:
            return Neighbours(np.empty(0, np.int64), np.empty(0, np.float32), filtered)
        vectors: dict[int, ndarray] = {}
        nearest_cells = self._place.reports[file_name(relation, view)].effort if allowed is None else None
        for cells in dict.fromkeys((nearest_cells, None)):

            def find(depth: int, cells: int | None = cells) -> Neighbours | None:
                found = self._nearest(relation, view, query, depth, mask, few, cells)
                if found is None:
                    return None
                vectors.update(zip(found[0].rows.tolist(), found[1], strict=True))
                return found[0]

            if (rough := widened(find, min(k, few), few)) is not None:
                stored = np.stack([vectors[row] for row in rough.rows.tolist()])
                return Neighbours.best(rough.rows, cosines(stored, query), min(k, few), filtered)
        found = self._scan(relation, view, query, k, mask)
        return found if allowed is None else replace(found, filtered=Filtered(few, ("scan",)))

    def _nearest(
        self,
        relation: int,
        view: View,
        query: ndarray,
        depth: int,
        mask: ndarray | None,
        few: int,
        cells: int | None,
    ) -> tuple[Neighbours, list[ndarray]] | None:
        """Find the `depth` nearest rows in `mask` and their vectors; None if the server cannot return so many.

        Only the items in the `cells` nearest to the query are considered; in all cells if `cells` is None.
        """
        condition, passed = _condition(relation, mask, few)
        most = min(MAX_MILVUS_RESULTS, 2 * self._chunk, self.count)
        if depth > most:
            return None
        asked = min(depth if passed is None else math.ceil(1.2 * depth * self.count / few), most)
        while True:
            (hits,) = self._read(
                "search",
                view,
                data=[query],
                anns_field=VECTOR_FIELD,
                filter=condition,
                limit=asked,
                output_fields=[VECTOR_FIELD],
                partition_names=[partition_name(relation)],
                search_params=self._search_params(cells),
                **read_options(),
            )
            rows = _rows(hits)
            if len(rows) < min(asked, self.count if passed is not None else few):
                if cells is not None:
                    return None
                raise unlike(self._place, view, f"returned {len(rows)} results for a limit of {asked}")
            kept = np.flatnonzero(passed[rows]) if passed is not None else np.arange(len(rows))
            if len(kept) >= depth or asked == self.count:
                found = [hits[place] for place in kept[:depth].tolist()]
                vectors = [_vector(hit["entity"][VECTOR_FIELD]) for hit in found]
                return Neighbours(rows[kept[:depth]], _scores(found)), vectors
            if asked == most:
                return None
            asked = min(2 * asked, most)

    def rough(
        self, relation: int, view: View, queries: Float32[ndarray, "queries dim"], k: int, cells: int | None
    ) -> list[Neighbours]:
        """Find at most `k` items in the nearest `cells` of each query, with the scores of Milvus; all cells if None."""
        found = self._read(
            "search",
            view,
            data=list(queries),
            anns_field=VECTOR_FIELD,
            limit=k,
            partition_names=[partition_name(relation)],
            search_params=self._search_params(cells),
            **read_options(),
        )
        return [Neighbours(_rows(hits), _scores(hits)) for hits in found]

    def _search_params(self, cells: int | None) -> dict[str, Any]:
        if self._place.cells is None:
            return {"metric_type": "IP"}
        return {"metric_type": "IP", "params": {"nprobe": MAX_CELLS if cells is None else cells}}

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

    def _shape(self, name: str) -> dict[str, int]:
        """Return the vector fields of a collection and their dimensions."""
        described = self._client.describe_collection(name, **limits())
        return {
            one["name"]: int(one["params"]["dim"]) for one in described["fields"] if "dim" in one["params"]
        }


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


def _vector(found: Any) -> Float32[ndarray, " dim"]:
    return np.asarray(found, np.float32)


def _rows(hits: Any) -> Int64[ndarray, " hits"]:
    """Return the catalogue rows of search results. Milvus 2.3 does not name the key field, which is then `id`."""
    keys = (hit[KEY_FIELD] if KEY_FIELD in hit else hit["id"] for hit in hits)
    return np.fromiter((key % ROWS_PER_RELATION for key in keys), np.int64, len(hits))


def _scores(hits: Any) -> Float32[ndarray, " hits"]:
    return np.array([hit["distance"] for hit in hits], np.float32)
