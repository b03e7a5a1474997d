"""ANN indexes that find candidates without scanning every vector; the candidates are then scored exactly.

- `hnsw`: a graph over the vectors that a search traverses (Malkov & Yashunin 2016, arXiv 1603.09320).
- `ivf-rabitq`: cells of similar vectors. A search scans only the nearest cells, in which a code of one bit per
  component represents each vector (Gao & Long 2024, arXiv 2405.12497).
- `ivf-pq`: the same cells with codes of 4 bits for every two components (Jegou et al. 2011; Andre et al. 2018).

FAISS implements all three. The measurements are in docs/decisions.md.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, Self

import faiss
import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from indexes.config import IndexKind
from model.durable_files import not_stored
from model.native_path import native_path
from model.plain_file import decoding, plain_status

from .half_vectors import HalfVectors

VECTORS_PER_CHUNK = 16_384
"""Number of vectors decoded to single precision at a time."""

REFINE_FACTOR = 8
"""Minimum number of candidates of codes per requested result, because codes are coarse."""

MIN_CANDIDATES = 320
"""Minimum number of candidates of codes, which are then scored from their vectors.

Among a million items, 160 candidates contain 93 % of the ten nearest of a new query, 320 contain 96.5 %, whatever the
number of cells.
"""

TRAINING_ROUNDS = 10
"""Number of rounds in which the cells are trained. Half of them lose up to 0.02 of the recall for equal cells."""

VECTORS_PER_CELL = 40
"""Number of vectors that the cells are trained on, for each cell."""

Candidates = tuple[Int64[ndarray, " n"], Float32[ndarray, " n"]]
"""Catalogue rows and their scores, best first; the scores are exact except for rounding."""


class AnnIndex(Protocol):
    """Interface of an opened ANN index over the vectors of one relation and view."""

    @property
    def search_parameters(self) -> Sequence[int]:
        """Search parameters to choose from, fastest first: efSearch for HNSW, nprobe for IVF."""

    @staticmethod
    def bytes_per_vector(dim: int) -> int:
        """Estimate the memory per item, in bytes."""

    @classmethod
    def write(cls, exact: Any, path: Path) -> None:
        """Build an ANN index over the vectors of the flat index `exact` and write it to `path`."""

    @classmethod
    def carry(cls, old: Path, renumbered: Int64[ndarray, " before"], exact: Any, path: Path) -> bool:
        """Write an index to `path` that differs from `old` by few items, without building it anew; False if it cannot.

        `renumbered` is the new row of each item in `old`, -1 if the item is gone. The remaining items come first in the
        flat index `exact`, in the same order, followed by the new items.
        """

    @classmethod
    def open(cls, path: Path, exact: Any) -> Self:
        """Open an index that `write` wrote."""

    def candidates(self, query: Float32[ndarray, " dim"], k: int, search_parameter: int) -> Candidates:
        """Find approximately the `k` nearest vectors; the result may be shorter."""


class HnswIndex:
    """HNSW graph. The search parameter is efSearch, the number of candidates tracked during a search."""

    SEARCH_PARAMETERS = (64, 128, 256, 512, 1024, 2048)

    def __init__(self, index: Any, exact: Any) -> None:
        # The file contains only the graph. The vectors are those of the flat index, which is mapped once.
        index.storage, index.own_fields = exact, False
        # The assignment to `storage` ends Python's ownership of `exact`. Without the next line, the file of `exact`
        # would stay open.
        exact.thisown = True
        self._index, self._exact = index, exact

    @property
    def search_parameters(self) -> Sequence[int]:
        """Values of efSearch to choose from, fastest first."""
        return self.SEARCH_PARAMETERS

    @staticmethod
    def bytes_per_vector(dim: int) -> int:
        """Return the size of 64 links of 4 bytes on the lowest level, plus a few links above it."""
        return 272

    @classmethod
    def write(cls, exact: Any, path: Path) -> None:
        """Build a graph over all vectors."""
        index = empty_graph(exact.d)
        for vectors in _chunks(exact):
            index.add(vectors)
        write_index(index, path, faiss.IO_FLAG_SKIP_STORAGE)

    @classmethod
    def carry(cls, old: Path, renumbered: Int64[ndarray, " before"], exact: Any, path: Path) -> bool:
        """Return False: items cannot be taken out of a graph."""
        return False

    @classmethod
    def open(cls, path: Path, exact: Any) -> Self:
        """Map the graph into memory."""
        return cls(read_index(path, faiss.IO_FLAG_MMAP_IFC), exact)

    def candidates(self, query: Float32[ndarray, " dim"], k: int, search_parameter: int) -> Candidates:
        """Find candidates by traversing the graph."""
        return _found(
            *self._index.search(query[None], k, params=_hnsw_parameters(max(search_parameter, 2 * k)))
        )


def empty_graph(dim: int) -> Any:
    """Create a graph without vectors that will have 32 links per item (64 on the lowest level)."""
    index = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_fp16, 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 100
    return index


@lru_cache
def _hnsw_parameters(search_parameter: int) -> Any:
    """Create search parameters, cached because creating them costs more than a small search."""
    return faiss.SearchParametersHNSW(efSearch=search_parameter)


def candidates_of_codes(k: int, search_parameter: int) -> int:
    """Return the number of candidates of codes that are scored from their vectors, to find the `k` best."""
    return max(MIN_CANDIDATES, REFINE_FACTOR * k, 2 * search_parameter)


class _IvfIndex:
    """IVF index with vector codes. The search parameter is nprobe, the number of cells scanned."""

    _CODES: str

    def __init__(self, index: Any, exact: Any) -> None:
        self._codes, self._vectors = index, HalfVectors(exact)

    @property
    def search_parameters(self) -> Sequence[int]:
        """Values of nprobe to choose from: powers of two from 16, then the number of cells."""
        cells: int = self._codes.nlist
        return [*(nprobe for nprobe in (2**power for power in range(4, 16)) if nprobe < cells), cells]

    @classmethod
    def write(cls, exact: Any, path: Path) -> None:
        """Train the cells and the codes, then assign every item to a cell."""
        cells = _cell_count(exact.ntotal)
        codes = cls._CODES.format(pairs=exact.d // 2)
        index = faiss.index_factory(exact.d, f"IVF{cells},{codes}", faiss.METRIC_INNER_PRODUCT)
        index.cp.niter = TRAINING_ROUNDS
        drawn = np.random.default_rng(0).permutation(exact.ntotal)[: VECTORS_PER_CELL * cells]
        index.train(exact.reconstruct_batch(np.sort(drawn)))
        for vectors in _chunks(exact):
            index.add(vectors)
        write_index(index, path)

    @classmethod
    def open(cls, path: Path, exact: Any) -> Self:
        """Map the codes into memory, which the processes of a server then share."""
        return cls(read_index(path, faiss.IO_FLAG_MMAP_IFC), exact)

    def candidates(self, query: Float32[ndarray, " dim"], k: int, search_parameter: int) -> Candidates:
        """Scan the codes in the nearest cells, and score the best matches from their vectors."""
        wanted = candidates_of_codes(k, search_parameter)
        rows, _ = _found(*self._codes.search(query[None], wanted, params=self._scanned(search_parameter)))
        self._vectors.read_ahead(rows)
        scores = np.vecdot(self._vectors.take(rows), query)
        best = np.argsort(-scores)[:k]
        return rows[best], scores[best]

    @staticmethod
    @lru_cache
    def _scanned(search_parameter: int) -> Any:
        return faiss.SearchParametersIVF(nprobe=search_parameter)


class IvfPqIndex(_IvfIndex):
    """IVF index with product quantization: 4 bits for every two components."""

    _CODES = "PQ{pairs}x4fs"

    @classmethod
    def carry(cls, old: Path, renumbered: Int64[ndarray, " before"], exact: Any, path: Path) -> bool:
        """Return False: FAISS 1.15 damages the blocks of fast-scan codes if items are added after some were removed."""
        return False

    @staticmethod
    def bytes_per_vector(dim: int) -> int:
        """Return the total size of an item's code, row number and share of the centroids."""
        return dim // 4 + 50


class IvfRabitqIndex(_IvfIndex):
    """IVF index with RaBitQ codes: one bit per component of an item, eight bits per component of the query."""

    _CODES = "RaBitQ"

    @classmethod
    def carry(cls, old: Path, renumbered: Int64[ndarray, " before"], exact: Any, path: Path) -> bool:
        """Keep cells and codes, take out the items that are gone, and add the new ones.

        Return False if so many items came or went that the number of cells no longer fits.
        """
        index = read_index(old)
        if index.nlist != _cell_count(exact.ntotal):
            return False
        gone = np.flatnonzero(renumbered < 0)
        index.remove_ids(faiss.IDSelectorBatch(gone))
        lists = index.invlists
        for cell in range(index.nlist):
            if size := lists.list_size(cell):
                ids = faiss.rev_swig_ptr(lists.get_ids(cell), size)
                ids[:] = renumbered[ids]
        for vectors in _chunks(exact, index.ntotal):
            index.add(vectors)
        write_index(index, path)
        return True

    @staticmethod
    def bytes_per_vector(dim: int) -> int:
        """Return the total size of an item's code, correction factors, row number and share of the centroids."""
        return dim // 8 + 40

    @staticmethod
    @lru_cache
    def _scanned(search_parameter: int) -> Any:
        return faiss.IVFRaBitQSearchParameters(nprobe=search_parameter, qb=8)


def read_index(path: Path, flags: int = 0) -> Any:
    """Read the FAISS index at `path`.

    Raises:
        ArtifactError: the file is not a plain file, or is damaged.
    """
    plain_status(path, path.parent)
    with decoding(path), native_path(path) as name:
        return faiss.read_index(name, flags)


def write_index(index: Any, path: Path, flags: int = 0) -> None:
    """Write a FAISS index to `path`.

    Raises:
        StorageError: the disk is full or failing.
    """
    try:
        with native_path(path, os.O_WRONLY | os.O_CREAT) as name:
            faiss.write_index(index, name, flags)
    except RuntimeError as error:
        raise not_stored(path, error) from None


ANN_INDEXES: Mapping[IndexKind, type[AnnIndex]] = {
    "hnsw": HnswIndex,
    "ivf-pq": IvfPqIndex,
    "ivf-rabitq": IvfRabitqIndex,
}


def _cell_count(items: int) -> int:
    """Return the number of cells for a number of items: about 4 times its square root, rounded to a power of two."""
    return int(2 ** round(np.log2(4 * items**0.5)))


def _chunks(exact: Any, first: int = 0) -> Iterator[Float32[ndarray, "chunk dim"]]:
    """Decode the vectors of a flat index from the row `first` on."""
    for start in range(first, exact.ntotal, VECTORS_PER_CHUNK):
        yield exact.reconstruct_n(start, min(VECTORS_PER_CHUNK, exact.ntotal - start))


def _found(scores: Float32[ndarray, "1 k"], rows: Int64[ndarray, "1 k"]) -> Candidates:
    """Drop the row numbers -1 that FAISS adds to a short result."""
    if rows[0, -1] >= 0:
        return rows[0], scores[0]
    there = rows[0] >= 0
    return rows[0, there], scores[0, there]
