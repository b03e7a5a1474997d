"""Vectors kept by FAISS in this process: one flat index for each relation and view, scanned exactly.

Components are stored in half precision: half the memory, and a cosine moves by some 0.0002 at most. That is
seen only where a view's cosines crowd together: on the sample shop 99.9 % of the ten nearest stay by average,
97.6 % by picture. A flat scan of 100,000 items of 128 dimensions takes under a millisecond on one thread, so
nothing approximate is needed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from model.encoding import Encoding
from model.records import View

from .vectors import Neighbours

FOLDER = "vectors"
"""Where the files lie within an index."""


class FaissVectors:
    """A `VectorIndex` over one FAISS index for each (relation position, view)."""

    def __init__(self, indexes: dict[tuple[int, View], Any]) -> None:
        self._indexes = indexes

    @classmethod
    def empty(cls, relations: int, dim: int) -> "FaissVectors":
        """Room for the vectors of items under `relations` relations, to be filled with `add`."""
        return cls(
            {
                key: faiss.IndexScalarQuantizer(
                    dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
                )
                for key in _keys(relations)
            }
        )

    @classmethod
    def open(cls, folder: Path, relations: int) -> "FaissVectors":
        """Read what `save` wrote."""
        # A server answers one query at a time: handing parts of a scan to threads costs more than it saves.
        faiss.omp_set_num_threads(1)
        return cls({key: faiss.read_index(str(folder / _file_name(*key))) for key in _keys(relations)})

    def add(self, encoding: Encoding) -> None:
        """Append items; their rows go on from `count`."""
        for view in View:
            vectors = encoding.view(view)
            for relation in range(vectors.shape[1]):
                self._indexes[relation, view].add(np.ascontiguousarray(vectors[:, relation]))

    def save(self, folder: Path) -> None:
        """Write one file for each relation and view into `folder`, which is made."""
        folder.mkdir()
        for key, index in self._indexes.items():
            faiss.write_index(index, str(folder / _file_name(*key)))

    @property
    def count(self) -> int:
        """Number of items."""
        return int(self._indexes[0, View.TEXT].ntotal)

    @property
    def dim(self) -> int:
        """Length of every vector."""
        return int(self._indexes[0, View.TEXT].d)

    def vectors(self, relation: int, view: View, rows: Sequence[int]) -> Float32[ndarray, "rows dim"]:
        """The stored vectors of the items at `rows`, rounded to half precision."""
        found: ndarray = self._indexes[relation, view].reconstruct_batch(np.asarray(rows, dtype=np.int64))
        return found

    def search(
        self, relation: int, view: View, query: Float32[ndarray, " dim"], k: int, excluded: int | None = None
    ) -> Neighbours:
        """See `VectorIndex.search`.

        FAISS returns equal scores in any order, and drops any of those that straddle its cut. So it is asked
        for more until the cut falls between two different scores; the order is then made here.
        """
        wanted = min(k + (excluded is not None), self.count)
        if wanted == 0:
            return Neighbours(np.empty(0, np.int64), np.empty(0, np.float32))
        depth = wanted
        while True:
            depth = min(depth + wanted, self.count)
            scores, rows = (found[0] for found in self._indexes[relation, view].search(query[None], depth))
            if depth == self.count or scores[-1] < scores[wanted - 1]:
                break
        order = np.lexsort((rows, -scores))
        order = order[rows[order] != excluded][:k] if excluded is not None else order[:k]
        # Rounding to half precision may leave a vector a hair longer than 1; a cosine is at most 1.
        return Neighbours(rows[order], np.clip(scores[order], -1.0, 1.0))


def _keys(relations: int) -> list[tuple[int, View]]:
    return [(relation, view) for relation in range(relations) for view in View]


def _file_name(relation: int, view: View) -> str:
    """Named by position, since the id of a relation may hold characters that no file name can."""
    return f"{relation:03d}.{view}.faiss"
