"""Selection of the vector backend of a generation.

The backend of a new generation depends on the build options, that of an existing generation on its files.
"""

from collections.abc import Callable
from pathlib import Path

from indexes.config import BuildConfig, IndexKind

from .contract import Source, VectorIndex
from .faiss_backend import Carried, FaissVectors, write_vectors
from .gpu_vectors import CPU, Cards
from .milvus.milvus_backend import MilvusVectors
from .milvus.milvus_collections import MILVUS_FILE
from .milvus.milvus_writer import write_milvus

VECTORS_DIR = "vectors"
"""Name of the folder within a generation that contains the vectors."""


def open_vectors(folder: Path, cards: Cards = CPU) -> VectorIndex:
    """Open the vectors that `keep_vectors` wrote. Vectors in files are copied to `cards` when they are first searched.

    Raises:
        ArtifactError: the Milvus server does not answer, or no longer has the vectors.
        InputError: pymilvus is not installed.
    """
    return MilvusVectors(folder) if (folder / MILVUS_FILE).exists() else FaissVectors(folder, cards)


def keep_vectors(
    folder: Path,
    generation: Path,
    config: BuildConfig,
    relations: int,
    dim: int,
    source: Source,
    kind: IndexKind,
    advance: Callable[[], None] = lambda: None,
    carried: Carried | None = None,
) -> None:
    """Write the vectors of a future `generation` to files in `folder`, or to collections that `folder` refers to.

    Files of `carried` vectors are copied. Milvus collections receive all vectors from `source`.

    Raises:
        InputError: `kind` does not reach `config.min_recall`, or pymilvus is not installed.
        ArtifactError: the Milvus server does not answer, or did not store all vectors.
    """
    if config.vectors is None:
        write_vectors(folder, relations, dim, source, kind, config.min_recall, advance, carried=carried)
    else:
        write_milvus(
            folder, generation, config.vectors, relations, dim, source, kind, config.min_recall, advance
        )
