"""ANN indexes, which find candidates without a look at most vectors; the candidates are then scored exactly.

- `hnsw`: a graph over the vectors, along which a search walks (Malkov & Yashunin 2016, arXiv 1603.09320).
- `ivf-rabitq`: cells of near vectors, of which the nearest are scanned by codes of one bit a component (Gao &
  Long 2024, arXiv 2405.12497).
- `ivf-pq`: the same by codes of 4 bits for every two components (Jegou et al. 2011; Andre et al. 2018).

Measured in docs/decisions.md; FAISS has all three.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, Self

import faiss
import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from indexes.config import IndexKind
from model.artifact import not_stored

VECTORS_PER_CHUNK = 16_384
"""Vectors decoded to single precision at a time."""

REFINE_FACTOR = 8
"""Candidates by codes for each result wanted: codes are coarse, and to score a vector exactly takes 0.1 us."""

Candidates = tuple[Int64[ndarray, " n"], Float32[ndarray, " n"]]
"""Rows and their scores, best first; the scores are exact but for rounding."""


class AnnIndex(Protocol):
    """An ANN index over the vectors of one relation and view, opened."""

    @property
    def search_parameters(self) -> Sequence[int]:
        """Sensible search parameters, fastest first: efSearch of HNSW, nprobe of IVF."""

    @staticmethod
    def bytes_per_vector(dim: int) -> int:
        """Estimate the memory it takes for each item."""

    @classmethod
    def write(cls, exact: Any, path: Path) -> None:
        """Make an index of the vectors of a flat index, and write it."""

    @classmethod
    def open(cls, path: Path, exact: Any) -> Self:
        """Open what `write` wrote."""

    def candidates(self, query: Float32[ndarray, " dim"], k: int, search_parameter: int) -> Candidates:
        """Find the `k` nearest, approximately; perhaps fewer."""


class HnswIndex:
    """An HNSW graph; its search parameter is efSearch, the number of candidates kept on the way."""

    SEARCH_PARAMETERS = (64, 128, 256, 512, 1024, 2048)

    def __init__(self, index: Any, exact: Any) -> None:
        # The file holds the graph alone: the vectors are those of the flat index, mapped once.
        index.storage, index.own_fields = exact, False
        # The assignment took the ownership from Python, and the file would never be closed.
        exact.thisown = True
        self._index, self._exact = index, exact

    @property
    def search_parameters(self) -> Sequence[int]:
        """Values of efSearch."""
        return self.SEARCH_PARAMETERS

    @staticmethod
    def bytes_per_vector(dim: int) -> int:
        """Count 64 links of 4 bytes on the lowest level, and a few above."""
        return 272

    @classmethod
    def write(cls, exact: Any, path: Path) -> None:
        """Make a graph of 32 links an item."""
        index = faiss.IndexHNSWSQ(exact.d, faiss.ScalarQuantizer.QT_fp16, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 100
        for vectors in _chunks(exact):
            index.add(vectors)
        write_index(index, path, faiss.IO_FLAG_SKIP_STORAGE)

    @classmethod
    def open(cls, path: Path, exact: Any) -> Self:
        """Map the graph into memory."""
        return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC), exact)

    def candidates(self, query: Float32[ndarray, " dim"], k: int, search_parameter: int) -> Candidates:
        """Walk along the graph."""
        return _found(
            *self._index.search(query[None], k, params=_hnsw_parameters(max(search_parameter, 2 * k)))
        )


@lru_cache
def _hnsw_parameters(search_parameter: int) -> Any:
    """Make search parameters; cached, here and below: to make them costs more than a small search."""
    return faiss.SearchParametersHNSW(efSearch=search_parameter)


class _IvfIndex:
    """An IVF index with codes; its search parameter is nprobe, the number of cells scanned."""

    _CODES: str

    def __init__(self, index: Any, exact: Any) -> None:
        # What the codes find is scored again from the vectors, within FAISS.
        self._index, self._codes = faiss.IndexRefine(index, exact), index

    @property
    def search_parameters(self) -> Sequence[int]:
        """Values of nprobe, doubled until all cells."""
        cells: int = self._codes.nlist
        return [*(nprobe for nprobe in (2**power for power in range(4, 16)) if nprobe < cells), cells]

    @classmethod
    def write(cls, exact: Any, path: Path) -> None:
        """Learn cells, 4 times the root of the items, and codes; then sort the items in."""
        cells = 2 ** round(np.log2(4 * exact.ntotal**0.5))
        codes = cls._CODES.format(pairs=exact.d // 2)
        index = faiss.index_factory(exact.d, f"IVF{cells},{codes}", faiss.METRIC_INNER_PRODUCT)
        drawn = np.random.default_rng(0).permutation(exact.ntotal)[: 40 * cells]
        index.train(exact.reconstruct_batch(np.sort(drawn)))
        for vectors in _chunks(exact):
            index.add(vectors)
        write_index(index, path)

    @classmethod
    def open(cls, path: Path, exact: Any) -> Self:
        """Read the codes; they are short."""
        return cls(faiss.read_index(str(path)), exact)

    def candidates(self, query: Float32[ndarray, " dim"], k: int, search_parameter: int) -> Candidates:
        """Scan the codes of the nearest cells."""
        params = self._parameters(search_parameter, max(REFINE_FACTOR, 2 * search_parameter / k))
        return _found(*self._index.search(query[None], k, params=params))

    @classmethod
    @lru_cache
    def _parameters(cls, search_parameter: int, shortlist: float) -> Any:
        return faiss.IndexRefineSearchParameters(
            k_factor=shortlist, base_index_params=cls._scanned(search_parameter)
        )

    @staticmethod
    def _scanned(search_parameter: int) -> Any:
        return faiss.SearchParametersIVF(nprobe=search_parameter)


class IvfPqIndex(_IvfIndex):
    """IVF with product quantization: 4 bits for every two components."""

    _CODES = "PQ{pairs}x4fs"

    @staticmethod
    def bytes_per_vector(dim: int) -> int:
        """Count the code, a row number, a share of the centres of cells."""
        return dim // 4 + 50


class IvfRabitqIndex(_IvfIndex):
    """IVF with RaBitQ: one bit a component; the query has eight."""

    _CODES = "RaBitQ"

    @staticmethod
    def bytes_per_vector(dim: int) -> int:
        """Count the code and its two factors, a row number, a share of the centres of cells."""
        return dim // 8 + 40

    @staticmethod
    def _scanned(search_parameter: int) -> Any:
        return faiss.IVFRaBitQSearchParameters(nprobe=search_parameter, qb=8)


def write_index(index: Any, path: Path, flags: int = 0) -> None:
    """Write a FAISS index.

    Raises:
        StorageError: the disk is full or failing.
    """
    try:
        faiss.write_index(index, str(path), flags)
    except RuntimeError as error:
        raise not_stored(path, error) from None


ANN_INDEXES: Mapping[IndexKind, type[AnnIndex]] = {
    "hnsw": HnswIndex,
    "ivf-pq": IvfPqIndex,
    "ivf-rabitq": IvfRabitqIndex,
}


def _chunks(exact: Any) -> Iterator[Float32[ndarray, "chunk dim"]]:
    for start in range(0, exact.ntotal, VECTORS_PER_CHUNK):
        yield exact.reconstruct_n(start, min(VECTORS_PER_CHUNK, exact.ntotal - start))


def _found(scores: Float32[ndarray, "1 k"], rows: Int64[ndarray, "1 k"]) -> Candidates:
    """Drop the -1 with which FAISS fills up if it found fewer."""
    if rows[0, -1] >= 0:
        return rows[0], scores[0]
    there = rows[0] >= 0
    return rows[0, there], scores[0, there]
