"""The choice of a vector backend: by the options when a generation is made, by its files when it is opened."""

from collections.abc import Callable
from pathlib import Path

from indexes.config import BuildConfig, IndexKind

from .contract import Source, VectorIndex
from .faiss_backend import Carried, FaissVectors, write_vectors
from .milvus_backend import MilvusVectors, write_milvus
from .milvus_collections import MILVUS_FILE

VECTORS_DIR = "vectors"
"""Folder of the vectors within a generation."""


def open_vectors(folder: Path) -> VectorIndex:
    """Open the vectors that `keep_vectors` wrote.

    Raises:
        ArtifactError: a server has lost them, or does not answer.
        InputError: a package that asks it is missing.
    """
    return MilvusVectors(folder) if (folder / MILVUS_FILE).exists() else FaissVectors(folder)


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
    """Write the vectors of a future `generation` into `folder`, or into Milvus and its address into `folder`.

    Vectors that are `carried` are copied from file to file; Milvus is given all vectors by `source`.

    Raises:
        InputError: `kind` does not reach `config.min_recall`, or a package is missing.
        ArtifactError: a server does not answer, or does not keep what it is given.
    """
    if config.vectors is None:
        write_vectors(folder, relations, dim, source, kind, config.min_recall, advance, carried=carried)
    else:
        write_milvus(folder, generation, config.vectors, relations, dim, source, advance)
