"""Vectors kept by FAISS in files of this machine: two at most for each relation and view.

    vectors/
      003.text.faiss       every vector in half precision: scanned where an answer must be exact
      003.text.hnsw.faiss  the ANN index, of the kind that was chosen; absent for few items
      report.json          the size of each, its search parameter, and the recall measured with that

Half precision moves a cosine by some 0.0002 at most. That is seen only where a view's cosines crowd together:
on the sample shop 99.9 % of the ten nearest stay by average, 97.6 % by picture.

Every kind scores what it found again from the stored vectors, in one way (`cosines`), so scores and ties do not
depend on the kind. Files are opened when first asked for and mapped into memory: only what is searched is read.
"""

import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import faiss
import numpy as np
from jaxtyping import Bool, Float16, Float32, Int64
from numpy import ndarray
from pydantic import RootModel

from indexes.config import IndexKind
from model.errors import InputError
from model.similarity import Similarity, View

from .ann_index import ANN_INDEXES, AnnIndex, write_index
from .contract import ROUNDING, FileReport, Neighbours, Source, cosines, file_name, widened
from .faiss_threads import threads

MAX_SCANNED_ITEMS = 10_000
"""Items up to which every search is a scan: it takes a quarter of a millisecond, and is exact."""

MAX_ANN_DEPTH = 1_000
"""Deepest search of an ANN index; deeper results are scanned for, as it would be searched nearly whole."""

RECALL_QUERIES = 200
"""Queries with which recall is measured."""


@dataclass(frozen=True)
class Carried:
    """Vectors in the `folder` of another generation of the same items, taken over as they are.

    `positions` has, by the position of a relation now, the one that it has there.
    """

    folder: Path
    positions: Mapping[int, int]


class Report(RootModel[dict[str, FileReport]]):
    """`report.json`: one entry for each `003.text`."""


@dataclass(frozen=True)
class _VectorFile:
    """The vectors of one relation and view, opened."""

    exact: Any
    halves: Float16[ndarray, "items dim"]
    ann: AnnIndex | None
    search_parameter: int = 0

    def vectors(self, rows: Int64[ndarray, " rows"]) -> Float32[ndarray, "rows dim"]:
        """Convert the vectors at `rows` to single precision: exponents are moved up by 112, exact but for infinities.

        NumPy converts one by one, which takes four times as long; so does FAISS.
        """
        bits = self.halves[rows].view(np.int16).astype(np.int32)
        bits <<= 13
        bits &= ~0x70000000
        found: ndarray = bits.view(np.float32)
        found *= np.float32(2.0**112)
        return found

    def scan(
        self, query: Float32[ndarray, " dim"], k: int, allowed: Bool[ndarray, " count"] | None = None
    ) -> Neighbours:
        """Find the `k` nearest of all, or of those allowed."""
        few = self.exact.ntotal if allowed is None else int(np.count_nonzero(allowed))
        wanted = min(k, few)
        if wanted == 0:
            return Neighbours(np.empty(0, np.int64), np.empty(0, np.float32))
        params = None
        if allowed is not None:
            selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            params = faiss.SearchParameters(sel=selector)

        def find(depth: int) -> Neighbours:
            scores, rows = (found[0] for found in self.exact.search(query[None], depth, params=params))
            return Neighbours(rows, scores)

        rough = widened(find, wanted, few)
        assert rough is not None, "a scan goes as deep as it is asked to"
        return self._scored(query, rough.rows, wanted)

    def search(self, query: Float32[ndarray, " dim"], k: int) -> Neighbours:
        """Find the `k` nearest of all, approximately; of equal ones all are considered, or a scan is made."""
        if self.ann is not None:
            depth = 2 * k
            while depth <= MAX_ANN_DEPTH:
                rows, scores = self.ann.candidates(query, depth, self.search_parameter)
                if len(rows) <= k:
                    break
                if scores[-1] < scores[k - 1] - ROUNDING:
                    return self._scored(query, rows[scores >= scores[k - 1] - ROUNDING], k)
                depth *= 2
        return self.scan(query, k)

    def _scored(self, query: Float32[ndarray, " dim"], rows: Int64[ndarray, " n"], k: int) -> Neighbours:
        """Score some rows exactly, and choose the `k` best."""
        return Neighbours.best(rows, cosines(self.vectors(rows), query), k)


class FaissVectors:
    """A `VectorIndex` over the files in a folder; may be searched from many threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.report = Report.model_validate_json((folder / "report.json").read_bytes()).root
        self._opened: dict[tuple[int, View], _VectorFile] = {}
        self._opening = Lock()

    def close(self) -> None:
        """Do nothing: the files are mapped as long as a search uses them."""

    @property
    def count(self) -> int:
        """Number of items."""
        return next(iter(self.report.values())).items

    @property
    def dim(self) -> int:
        """Length of every vector."""
        first = next(view for view in View if file_name(0, view) in self.report)
        return int(self._stored(0, first).exact.d)

    def vectors(self, relation: int, view: View, rows: Sequence[int]) -> Float32[ndarray, "rows dim"]:
        """Get the stored vectors of the items at `rows`, rounded to half precision."""
        return self._stored(relation, view).vectors(np.asarray(rows, dtype=np.int64))

    def search(
        self,
        relation: int,
        view: View,
        query: Float32[ndarray, " dim"],
        k: int,
        allowed: Bool[ndarray, " count"] | None = None,
        dropped: frozenset[int] = frozenset(),
    ) -> Neighbours:
        """Find the `k` nearest; see `VectorIndex.search`."""
        # FAISS keeps the number of threads by thread. A server answers one query at a time: on busy processors,
        # handing a part of a scan to another thread makes it five times as long.
        faiss.omp_set_num_threads(1)
        stored = self._stored(relation, view)
        if allowed is not None:
            if dropped:
                allowed = allowed.copy()
                allowed[list(dropped)] = False
            return stored.scan(query, k, allowed)
        depth = min(k + min(len(dropped), k), self.count)
        while True:
            found = stored.search(query, depth)
            if not dropped:
                return found
            kept = np.array([row not in dropped for row in found.rows.tolist()], dtype=bool)
            if kept.sum() >= k or depth == self.count:
                return Neighbours(found.rows[kept][:k], found.scores[kept][:k])
            depth = min(2 * depth, self.count)

    def _stored(self, relation: int, view: View) -> _VectorFile:
        key = relation, view
        if key not in self._opened:
            with self._opening:
                if key not in self._opened:
                    self._opened[key] = _open(self._folder, *key, self.report[file_name(*key)])
        return self._opened[key]


def resident_bytes(kind: IndexKind, dim: int) -> int:
    """Estimate the bytes of memory that a search in one relation and view needs for each item.

    With codes the vectors themselves stay on the disk: a search reads a hundred of them.
    """
    narrows = ANN_INDEXES[kind].bytes_per_vector(dim) if kind != "flat" else 0
    return narrows if kind.startswith("ivf") else 2 * dim + narrows


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
    """Write the vectors under each relation and in each of `views` into `folder`, which is made.

    An ANN index gets the fastest search parameter that reaches `min_recall`. `advance` is called after each relation
    and view, but for those `carried`, which are copied.

    Raises:
        InputError: `kind` does not reach `min_recall` with any search parameter.
    """
    folder.mkdir()
    reports = {} if carried is None else _carry(folder, carried, views)
    every = ((relation, view) for relation in range(relations) for view in views)
    keys = [(relation, view) for relation, view in every if file_name(relation, view) not in reports]
    with threads():
        for relation, view in keys:
            name = file_name(relation, view)
            reports[name] = _write(folder, relation, view, dim, source(relation, view), kind)
            advance()
    with threads(1):
        for relation, view in keys:
            name = file_name(relation, view)
            reports[name] = _measure(folder, relation, view, reports[name], min_recall, views)
    (folder / "report.json").write_text(Report(reports).model_dump_json(indent=2) + "\n", encoding="utf-8")


def _carry(folder: Path, carried: Carried, views: Collection[View]) -> dict[str, FileReport]:
    known = FaissVectors(carried.folder).report
    reports = {}
    for now, then in carried.positions.items():
        for view in views:
            name, old = file_name(now, view), file_name(then, view)
            reports[name] = known[old]
            for ending in {"faiss", _ending(known[old].kind)}:
                shutil.copyfile(carried.folder / f"{old}.{ending}", folder / f"{name}.{ending}")
    return reports


def _ending(kind: IndexKind) -> str:
    """Give the ending of the file that a search looks into first."""
    return "faiss" if kind == "flat" else f"{kind}.faiss"


def _write(
    folder: Path, relation: int, view: View, dim: int, chunks: Iterable[ndarray], kind: IndexKind
) -> FileReport:
    exact = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    for chunk in chunks:
        # Rounded here: FAISS, unlike all else, does not round to the nearest number of half precision.
        exact.add(np.ascontiguousarray(chunk.astype(np.float16), dtype=np.float32))
    path = folder / f"{file_name(relation, view)}.faiss"
    write_index(exact, path)
    size = path.stat().st_size
    made_of: IndexKind = kind if exact.ntotal > MAX_SCANNED_ITEMS else "flat"
    if made_of != "flat":
        path = path.with_suffix(f".{_ending(made_of)}")
        ANN_INDEXES[made_of].write(exact, path)
        size += path.stat().st_size
    return FileReport(
        kind=made_of,
        items=exact.ntotal,
        bytes_per_vector=round(size / max(exact.ntotal, 1), 1),
    )


def _measure(
    folder: Path, relation: int, view: View, report: FileReport, min_recall: float, views: Collection[View]
) -> FileReport:
    """Find the fastest search parameter that reaches `min_recall`; queries are vectors of the views that will ask."""
    if report.kind == "flat":
        return report
    stored = _open(folder, relation, view, report)
    assert stored.ann is not None
    asking = sorted({query for query, target in (s.views for s in Similarity) if target == view} & {*views})
    drawn = np.random.default_rng(0).choice(report.items, RECALL_QUERIES, replace=False)
    queries = np.concatenate(
        [
            (stored if v == view else _open(folder, relation, v, report, exact=True)).vectors(rows)
            for v, rows in zip(asking, np.array_split(drawn, len(asking)), strict=True)
        ]
    )
    asked = list(zip(drawn.tolist(), queries, strict=True))
    least = [_others(stored.scan(query, 11), row)[-1] for row, query in asked]  # of equal items any will do
    recall = 0.0
    for search_parameter in stored.ann.search_parameters:
        tried = replace(stored, search_parameter=search_parameter)
        found = [_others(tried.search(query, 11), row) for row, query in asked]
        recall = float(np.mean([(one >= t).sum() / 10 for one, t in zip(found, least, strict=True)]))
        if recall >= min_recall:
            return report.model_copy(update={"effort": search_parameter, "recall_at_10": round(recall, 4)})
    raise InputError(
        f"kind {report.kind} reaches a recall of {recall:.4f} at most (relation {relation}, {view}), and "
        f"--min-recall asks for {min_recall}; lower it, or use --kind flat, which is exact."
    )


def _others(found: Neighbours, row: int) -> Float32[ndarray, " k"]:
    """Give the scores of the ten nearest but for the query item, which any search finds."""
    others: ndarray = found.scores[found.rows != row]
    return others[:10]


def _open(folder: Path, relation: int, view: View, report: FileReport, exact: bool = False) -> _VectorFile:
    path = folder / f"{file_name(relation, view)}.faiss"
    vectors = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    codes = faiss.rev_swig_ptr(vectors.codes.data(), vectors.codes.size())
    halves = codes.view(np.float16).reshape(-1, vectors.d)
    if exact or report.kind == "flat":
        return _VectorFile(vectors, halves, None)
    ann = ANN_INDEXES[report.kind].open(path.with_suffix(f".{_ending(report.kind)}"), vectors)
    return _VectorFile(vectors, halves, ann, report.effort or 0)
