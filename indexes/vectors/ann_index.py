"""What spares a search most of the vectors: it names candidates, which are then scored exactly.

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

CHUNK = 16_384
"""Vectors read back into full precision at a time."""

SHORTLIST = 8
"""Candidates by codes for each result wanted: codes are coarse, and scoring one exactly takes 0.1 us."""

Candidates = tuple[Int64[ndarray, " n"], Float32[ndarray, " n"]]
"""Rows and their scores, best first; the scores are exact but for rounding."""


class AnnIndex(Protocol):
    """One such structure, opened; `efforts` are sensible ones, least first."""

    @property
    def efforts(self) -> Sequence[int]:
        """How far it may be searched, least first, in its own unit."""

    @staticmethod
    def bytes_per_vector(dim: int) -> int:
        """What it takes for each item, about."""

    @classmethod
    def write(cls, exact: Any, path: Path) -> None:
        """Make one for the vectors of a flat index, and write it."""

    @classmethod
    def open(cls, path: Path, exact: Any) -> Self:
        """Open what `write` wrote."""

    def candidates(self, query: Float32[ndarray, " dim"], k: int, effort: int) -> Candidates:
        """The `k` nearest, mostly; perhaps fewer."""


class HnswIndex:
    """HNSW; the effort is the number of candidates it keeps on its way (ef)."""

    EFFORTS = (64, 128, 256, 512, 1024, 2048)

    def __init__(self, index: Any, exact: Any) -> None:
        # The file holds the graph alone: the vectors are those of the flat index, mapped once.
        index.storage, index.own_fields = exact, False
        exact.thisown = (
            True  # that was taken from Python with the assignment, and the file would never be closed
        )
        self._index, self._exact = index, exact

    @property
    def efforts(self) -> Sequence[int]:
        """Candidates kept."""
        return self.EFFORTS

    @staticmethod
    def bytes_per_vector(dim: int) -> int:
        """64 links of 4 bytes on the lowest level, and a few above."""
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

    def candidates(self, query: Float32[ndarray, " dim"], k: int, effort: int) -> Candidates:
        """Walk along the graph."""
        return _found(*self._index.search(query[None], k, params=_walk(max(effort, 2 * k))))


@lru_cache
def _walk(effort: int) -> Any:
    """Kept, here and below, since making parameters takes longer than some of the arithmetic."""
    return faiss.SearchParametersHNSW(efSearch=effort)


class _Cells:
    """IVF with codes; the effort is the number of cells scanned (nprobe)."""

    _CODES: str

    def __init__(self, index: Any, exact: Any) -> None:
        # What the codes find is scored again from the vectors, within FAISS.
        self._index, self._codes = faiss.IndexRefine(index, exact), index

    @property
    def efforts(self) -> Sequence[int]:
        """Cells, doubled until all of them."""
        cells: int = self._codes.nlist
        return [*(effort for effort in (2**power for power in range(4, 16)) if effort < cells), cells]

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

    def candidates(self, query: Float32[ndarray, " dim"], k: int, effort: int) -> Candidates:
        """Scan the codes of the nearest cells."""
        params = self._parameters(effort, max(SHORTLIST, 2 * effort / k))
        return _found(*self._index.search(query[None], k, params=params))

    @classmethod
    @lru_cache
    def _parameters(cls, effort: int, shortlist: float) -> Any:
        return faiss.IndexRefineSearchParameters(k_factor=shortlist, base_index_params=cls._scanned(effort))

    @staticmethod
    def _scanned(effort: int) -> Any:
        return faiss.SearchParametersIVF(nprobe=effort)


class ProductCodes(_Cells):
    """4 bits for every two components."""

    _CODES = "PQ{pairs}x4fs"

    @staticmethod
    def bytes_per_vector(dim: int) -> int:
        """The code, a row number, a share of the centres of cells."""
        return dim // 4 + 50


class BitCodes(_Cells):
    """One bit a component; the query has eight."""

    _CODES = "RaBitQ"

    @staticmethod
    def bytes_per_vector(dim: int) -> int:
        """The code and its two factors, a row number, a share of the centres of cells."""
        return dim // 8 + 40

    @staticmethod
    def _scanned(effort: int) -> Any:
        return faiss.IVFRaBitQSearchParameters(nprobe=effort, qb=8)


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
    "ivf-pq": ProductCodes,
    "ivf-rabitq": BitCodes,
}


def _chunks(exact: Any) -> Iterator[Float32[ndarray, "chunk dim"]]:
    for start in range(0, exact.ntotal, CHUNK):
        yield exact.reconstruct_n(start, min(CHUNK, exact.ntotal - start))


def _found(scores: Float32[ndarray, "1 k"], rows: Int64[ndarray, "1 k"]) -> Candidates:
    """FAISS fills up with -1 where it found fewer."""
    if rows[0, -1] >= 0:
        return rows[0], scores[0]
    there = rows[0] >= 0
    return rows[0, there], scores[0, there]
