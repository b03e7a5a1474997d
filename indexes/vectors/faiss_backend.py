"""FAISS vector backend: at most three local files for each relation and view.

    vectors/
      003.text.faiss       all vectors in half precision, which are scanned if the answer must be exact
      003.text.hnsw.faiss  the ANN index of the chosen kind; absent if there are few items
      003.text.codes.faiss one-bit codes for filters that allow many items; absent if there are few items
      report.json          for each relation and view: kind, size, search parameter and measured recall

Half precision changes a cosine by at most about 0.0002. The change affects results only if many cosines of a view
are nearly equal: on the sample shop, 99.9 % of the ten nearest items stay the same for the average view, 97.6 % for
the image view.

Every index kind computes final scores from the stored vectors with `cosines`, so scores and ties do not depend on
the kind. Files are opened on first use and mapped into memory: a search reads only the parts that it needs.

GPUs hold copies of the vectors, not of the ANN indexes, as far as they fit (`gpu_vectors.py`). Then every search is a
scan by the GPUs. Only an HNSW graph is faster, so it still answers searches without a filter on the CPU.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock

import faiss
import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray
from pydantic import RootModel

from indexes.config import IndexKind
from model.durable_files import link_or_copy
from model.errors import InputError
from model.plain_file import read_model
from model.similarity import View

from .ann_index import ANN_INDEXES, read_index, write_index
from .code_scan import CodeScan
from .contract import (
    MAX_SCANNED_ITEMS,
    RECALL_QUERIES,
    FileReport,
    Neighbours,
    RoughNeighbours,
    Source,
    file_name,
    query_views,
)
from .faiss_threads import thread_per_core, threads
from .filter_plan import MIN_CODED_ITEMS
from .filter_recall import Asked, measure_codes, measure_filters
from .gpu_card import MAX_CARD_DEPTH
from .gpu_vectors import CPU, Cards, CardTable, CardTables
from .vector_file import CODES_SUFFIX, VectorFile, ann_ending, open_vector_file

MAX_FILTER_EFFORTS = 3
"""Number of search parameters that are tried for filtered searches, from the one for plain searches on."""


@dataclass(frozen=True)
class Carried:
    """Files in the `folder` of another generation from which those of the new generation are made.

    `positions` maps the position of a relation in the new generation to its position in the other generation. If
    `renumbered` is None, both generations have the same items, and the files are taken over unchanged. Otherwise it is
    the new row of each item, -1 if the item is gone; see `AnnIndex.carry`.
    """

    folder: Path
    positions: Mapping[int, int]
    renumbered: Int64[ndarray, " before"] | None = None

    def ann_file(self, relation: int, view: View, kind: IndexKind) -> Path | None:
        """Return the path of the ANN index from which the one of a relation and view can be made; None if none is."""
        if self.renumbered is None or relation not in self.positions:
            return None
        path = self.folder / f"{file_name(self.positions[relation], view)}.{ann_ending(kind)}"
        return path if path.exists() else None


class Report(RootModel[dict[str, FileReport]]):
    """Content of `report.json`: one entry for each relation and view, such as `003.text`."""


class FaissVectors:
    """`VectorIndex` over the files in a folder; safe to search from many threads.

    The vectors are copied to `cards` by `copy_to_gpus`, or when they are first searched.
    """

    def __init__(self, folder: Path, cards: Cards = CPU) -> None:
        self._folder = folder
        self.report = read_model(Report, folder / "report.json").root
        self._opened: dict[tuple[int, View], VectorFile] = {}
        self._opening = Lock()
        self._copies = CardTables(cards)

    def close(self) -> None:
        """Free the memory of the GPUs.

        The files are unmapped when the last search that uses them ends and the object is deleted.
        """
        self._copies.close()

    def check(self) -> None:
        """Do nothing: open files stay readable."""

    @property
    def count(self) -> int:
        """Number of items."""
        return next(iter(self.report.values())).items

    @property
    def dim(self) -> int:
        """Number of components of every vector."""
        first = next(view for view in View if file_name(0, view) in self.report)
        return int(self.stored(0, first).exact.d)

    def vectors(self, relation: int, view: View, rows: Sequence[int]) -> Float32[ndarray, "rows dim"]:
        """Return the stored vectors of the items at `rows`, rounded to half precision."""
        return self.stored(relation, view).stored.take(np.asarray(rows, dtype=np.int64))

    def search(
        self,
        relation: int,
        view: View,
        query: Float32[ndarray, " dim"],
        k: int,
        allowed: Bool[ndarray, " count"] | None = None,
        dropped: frozenset[int] = frozenset(),
    ) -> Neighbours:
        """Find the `k` nearest items; see `VectorIndex.search`."""
        # FAISS stores the number of threads for each calling thread. One thread is best for the single queries of a
        # server: on busy processors, a scan that is split between threads takes five times as long.
        faiss.omp_set_num_threads(1)
        stored = self.stored(relation, view)
        table = self._table(relation, view)
        if allowed is not None:
            if dropped:
                allowed = allowed.copy()
                allowed[list(dropped)] = False
            return stored.search_allowed(query, k, allowed, table)
        depth = min(k + min(len(dropped), k), self.count)
        while True:
            found = stored.search(query, depth, table)
            if not dropped:
                return found
            kept = np.array([row not in dropped for row in found.rows.tolist()], dtype=bool)
            if kept.sum() >= k or depth == self.count:
                return Neighbours(found.rows[kept][:k], found.scores[kept][:k])
            depth = min(2 * depth, self.count)

    def scan(
        self, relation: int, view: View, queries: Float32[ndarray, "queries dim"], k: int
    ) -> RoughNeighbours | None:
        """Find the `k` nearest items for each query on the GPUs; None without GPUs. See `VectorIndex.scan`."""
        table = self._table(relation, view) if k <= MAX_CARD_DEPTH else None
        found = None if table is None else table.nearest(queries, k)
        if table is None or found is None:
            return None
        scores, rows = found
        return RoughNeighbours(rows, scores, table.error(queries))

    @property
    def device(self) -> str:
        """Name the GPUs and the memory in use, or the reason why the CPU searches."""
        return self._copies.describe(self.count, len(self.report), len({*map(_relation, self.report)}))

    def copy_to_gpus(self) -> None:
        """Copy the vectors to the GPUs until the GPUs are full, those of the average view first."""
        for view in sorted(View, key=lambda view: view is not View.AVERAGE):
            for relation in sorted(map(_relation, self.report)):
                if file_name(relation, view) in self.report and self._table(relation, view) is None:
                    return

    def _table(self, relation: int, view: View) -> CardTable | None:
        """Return the copy of vectors on the GPUs, which is made if it fits; None if there is none."""
        return self._copies.table(
            (relation, view), self.count, lambda: (self.stored(relation, view).stored.take, self.dim)
        )

    def stored(self, relation: int, view: View) -> VectorFile:
        """Open the vector files of a relation and view."""
        key = relation, view
        if key not in self._opened:
            with self._opening:
                if key not in self._opened:
                    self._opened[key] = open_vector_file(self._folder, *key, self.report[file_name(*key)])
        return self._opened[key]


def _relation(name: str) -> int:
    """Return the position of the relation in a name that `file_name` returned."""
    return int(name.partition(".")[0])


def resident_bytes(kind: IndexKind, dim: int, items: int) -> int:
    """Estimate the bytes of memory per item that a search under one relation and in one view needs.

    An IVF index keeps only codes in memory. The vectors stay on disk, because a search reads only a few hundred.
    """
    return ann_bytes(kind, dim, items) + (0 if kind.startswith("ivf") else 2 * dim)


def ann_bytes(kind: IndexKind, dim: int, items: int) -> int:
    """Return the bytes per item of the ANN index, and of the codes for filters if there are many `items`."""
    if kind == "flat":
        return 0
    codes = CodeScan.bytes_per_vector(dim) if items >= MIN_CODED_ITEMS else 0
    return ANN_INDEXES[kind].bytes_per_vector(dim) + codes


def write_vectors(
    folder: Path,
    relations: int,
    dim: int,
    source: Source,
    kind: IndexKind = "flat",
    min_recall: float = 0.0,
    advance: Callable[[], None] = lambda: None,
    views: Collection[View] = tuple(View),
    carried: Carried | None = None,
) -> None:
    """Create `folder` and write the vectors of each relation and each of `views` into it.

    An ANN index gets the fastest search parameter that reaches `min_recall`. If it was made from a `carried` index and
    does not reach `min_recall`, it is built anew. `advance` is called after each relation and view, except for files
    that are taken over unchanged.

    Raises:
        InputError: `kind` does not reach `min_recall` with any search parameter.
    """
    folder.mkdir()
    reports = {} if carried is None or carried.renumbered is not None else _carry(folder, carried, views)
    every = ((relation, view) for relation in range(relations) for view in views)
    keys = [(relation, view) for relation, view in every if file_name(relation, view) not in reports]
    with threads():
        for relation, view in keys:
            name = file_name(relation, view)
            reports[name] = _write(folder, relation, view, dim, source(relation, view), kind, carried)
            advance()
    for relation, view in keys:
        name = file_name(relation, view)
        measure = partial(_measure, folder, relation, view, reports[name], min_recall, views)
        try:
            reports[name] = measure()
        except InputError:
            if carried is None or carried.ann_file(relation, view, reports[name].kind) is None:
                raise
            _rebuild(folder, name, reports[name].kind)
            reports[name] = measure()
        reports[name] = _add_codes(folder, relation, view, reports[name], min_recall, views)
    (folder / "report.json").write_text(Report(reports).model_dump_json(indent=2) + "\n", encoding="utf-8")


def _carry(folder: Path, carried: Carried, views: Collection[View]) -> dict[str, FileReport]:
    known = FaissVectors(carried.folder).report
    reports = {}
    for now, then in carried.positions.items():
        for view in views:
            name, old = file_name(now, view), file_name(then, view)
            reports[name] = known[old]
            suffixes = {".faiss", f".{ann_ending(known[old].kind)}"}
            if known[old].code_margin is not None:
                suffixes.add(CODES_SUFFIX)
            for suffix in suffixes:
                link_or_copy(carried.folder / f"{old}{suffix}", folder / f"{name}{suffix}")
    return reports


def _write(
    folder: Path,
    relation: int,
    view: View,
    dim: int,
    chunks: Iterable[ndarray],
    kind: IndexKind,
    carried: Carried | None,
) -> FileReport:
    exact = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    for chunk in chunks:
        # NumPy rounds to the nearest half-precision number, which FAISS does not. Its codes are these numbers.
        exact.add_sa_codes(np.ascontiguousarray(chunk, np.float16).view(np.uint8))
    path = folder / f"{file_name(relation, view)}.faiss"
    write_index(exact, path)
    size = path.stat().st_size
    made_of: IndexKind = kind if exact.ntotal > MAX_SCANNED_ITEMS else "flat"
    if made_of != "flat":
        path = path.with_suffix(f".{ann_ending(made_of)}")
        made = False
        if carried is not None and (old := carried.ann_file(relation, view, made_of)) is not None:
            assert carried.renumbered is not None, "without it there is no file to make the index from"
            made = ANN_INDEXES[made_of].carry(old, carried.renumbered, exact, path)
        if not made:
            ANN_INDEXES[made_of].write(exact, path)
        size += path.stat().st_size
    return FileReport(
        kind=made_of,
        items=exact.ntotal,
        bytes_per_vector=round(size / max(exact.ntotal, 1), 1),
    )


def _rebuild(folder: Path, name: str, kind: IndexKind) -> None:
    """Build the ANN index of a relation and view again, from its vectors."""
    exact = read_index(folder / f"{name}.faiss", faiss.IO_FLAG_MMAP_IFC)
    with threads():
        ANN_INDEXES[kind].write(exact, folder / f"{name}.{ann_ending(kind)}")


def _measure(
    folder: Path, relation: int, view: View, report: FileReport, min_recall: float, views: Collection[View]
) -> FileReport:
    """Find the fastest search parameter that reaches `min_recall`; every core searches for other queries."""
    if report.kind == "flat":
        return report
    stored = open_vector_file(folder, relation, view, report)
    assert stored.ann is not None
    asked = _asked(folder, relation, view, report, views)
    recall = 0.0
    with thread_per_core() as pool:
        # Compare scores, not rows, because any of several equal items is a correct result.
        least = list(pool.map(lambda one: _others(stored.scan(one[1], 11), one[0])[-1], asked))
        for search_parameter in stored.ann.search_parameters:
            tried = replace(stored, search_parameter=search_parameter)
            found = pool.map(partial(_searched, tried), asked)
            recall = float(np.mean([(one >= t).sum() / 10 for one, t in zip(found, least, strict=True)]))
            if recall >= min_recall:
                choice = measure_filters(
                    lambda effort: replace(stored, filter_effort=effort, least_filter_share=0.0),
                    [one for one in stored.ann.search_parameters if one >= search_parameter][
                        :MAX_FILTER_EFFORTS
                    ],
                    asked,
                    min_recall,
                    pool,
                )
                measured = {"effort": search_parameter, "recall_at_10": round(recall, 4)}
                return report.model_copy(update=measured | choice._asdict())
    raise InputError(
        f"Index kind {report.kind} reaches a recall of at most {recall:.4f} (relation {relation}, {view} view), below "
        f"--min-recall {min_recall}. Lower --min-recall, or use --kind flat, which is exact."
    )


def _add_codes(
    folder: Path, relation: int, view: View, report: FileReport, min_recall: float, views: Collection[View]
) -> FileReport:
    """Write codes for filters that allow many items, if there can be such filters and the codes reach `min_recall`."""
    if report.kind == "flat" or report.items < MIN_CODED_ITEMS:
        return report
    path = folder / f"{file_name(relation, view)}{CODES_SUFFIX}"
    stored = replace(open_vector_file(folder, relation, view, report), least_filter_share=None)
    with threads():
        CodeScan.write(stored.exact, path)
    codes = CodeScan.open(path)
    asked = _asked(folder, relation, view, report, views)
    coded = partial(replace, stored, codes=codes)
    with thread_per_core() as pool:
        choice = measure_codes(codes, lambda margin: coded(code_margin=margin), asked, min_recall, pool)
    if choice.code_margin is None:
        path.unlink()
        return report
    size = report.bytes_per_vector + path.stat().st_size / report.items
    return report.model_copy(update={"bytes_per_vector": round(size, 1)} | choice._asdict())


def _asked(
    folder: Path, relation: int, view: View, report: FileReport, views: Collection[View]
) -> list[Asked]:
    """Draw items whose vectors are the queries of the measurements.

    Each of `views` that a similarity compares with `view` provides the same number of queries.
    """
    asking = [one for one in query_views(view) if one in views]
    drawn = np.random.default_rng(0).choice(report.items, RECALL_QUERIES, replace=False)
    queries = np.concatenate(
        [
            open_vector_file(folder, relation, one, report, exact=True).stored.take(rows)
            for one, rows in zip(asking, np.array_split(drawn, len(asking)), strict=True)
        ]
    )
    return list(zip(drawn.tolist(), queries, strict=True))


def _searched(stored: VectorFile, asked: Asked) -> Float32[ndarray, " k"]:
    """Return the scores of the ten items that a search finds, without the query item."""
    row, query = asked
    return _others(stored.search(query, 11), row)


def _others(found: Neighbours, row: int) -> Float32[ndarray, " k"]:
    """Return the scores of the ten nearest items without the query item, which every search finds."""
    others: ndarray = found.scores[found.rows != row]
    return others[:10]
