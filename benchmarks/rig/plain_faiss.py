"""Plain FAISS on the files of an index: the reference of the search benchmark."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from indexes.vectors.ann_index import candidates_of_codes
from indexes.vectors.faiss_backend import FaissVectors
from model.similarity import View

K = 10
VIEW = View.AVERAGE


class PlainFaiss:
    """FAISS indexes opened from the files in `folder`, searched with the parameters of `vectors` in one thread."""

    def __init__(self, folder: Path, vectors: FaissVectors) -> None:
        faiss.omp_set_num_threads(1)
        self._flat, self._index = [], []
        self._efforts = [report.effort or 0 for report in vectors.report.values()]
        self._kind = next(iter(vectors.report.values())).kind
        for relation in range(len(vectors.report)):
            path = folder / f"{relation:03d}.{VIEW}.faiss"
            flat = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
            self._flat.append(flat)
            path = path.with_suffix(f".{self._kind}.faiss")
            match self._kind:
                case "flat":
                    self._index.append(flat)
                case "hnsw":
                    graph = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
                    graph.storage, graph.own_fields = flat, False
                    self._index.append(graph)
                case _:
                    self._index.append(faiss.IndexRefine(faiss.read_index(str(path)), flat))

    def search(
        self, relation: int, query: Float32[ndarray, " dim"], allowed: Bool[ndarray, " count"] | None
    ) -> Float32[ndarray, " k"]:
        """Return the scores of the results."""
        params = self._parameters(self._efforts[relation], selector(allowed))
        scores, rows = self._index[relation].search(query[None], K, params=params)
        found: ndarray = scores[0][rows[0] >= 0]
        return found

    def least(
        self, relation: int, query: Float32[ndarray, " dim"], allowed: Bool[ndarray, " count"] | None
    ) -> float:
        """Return the score of the tenth nearest item, found by a scan."""
        params = faiss.SearchParameters(sel=selector(allowed))
        scores, rows = self._flat[relation].search(query[None], K, params=params)
        return float(scores[0][rows[0] >= 0].min(initial=np.inf))

    def _parameters(self, effort: int, sel: Any) -> Any:
        match self._kind:
            case "flat":
                return faiss.SearchParameters(sel=sel)
            case "hnsw":
                return faiss.SearchParametersHNSW(efSearch=max(effort, 4 * K), sel=sel)
            case "ivf-pq":
                cells = faiss.SearchParametersIVF(nprobe=effort, sel=sel)
            case "ivf-rabitq":
                cells = faiss.IVFRaBitQSearchParameters(nprobe=effort, qb=8, sel=sel)
        factor = candidates_of_codes(2 * K, effort) / K
        return faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=cells)


def selector(allowed: Bool[ndarray, " count"] | None) -> Any:
    """Convert a filter into a FAISS selector; None allows every item."""
    if allowed is None:
        return None
    return faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
