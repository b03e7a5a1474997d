"""Choices of a build: the kind of vector index, and which similarities get precomputed answers."""

from indexes.config import BuildConfig, IndexKind
from indexes.vectors.faiss_backend import resident_bytes
from model.errors import InputError
from model.similarity import Similarity, View

MAX_EXACT_ITEMS = 100_000
"""Items up to which all vectors are scanned, unless another kind is configured."""


def choose_kind(config: BuildConfig, items: int, relations: int, dim: int) -> IndexKind:
    """Choose the kind configured, or the fastest exact enough that fits.

    Raises:
        InputError: none fits `config.max_memory`, or Milvus is to keep the vectors, which has no such kind.
    """

    def fits(kind: IndexKind) -> bool:
        return config.max_memory is None or need(kind) <= config.max_memory

    def need(kind: IndexKind) -> int:
        return items * relations * len(View) * resident_bytes(kind, dim)

    if config.vectors is not None:
        if config.kind not in ("auto", "flat"):
            raise InputError(
                f"Milvus scans all vectors, exactly: --kind {config.kind} is for files of this machine. Leave one out."
            )
        return "flat"
    preferred: tuple[IndexKind, ...] = ("hnsw", "ivf-rabitq")
    if items <= MAX_EXACT_ITEMS:
        preferred = ("flat", *preferred)
    asked = preferred if config.kind == "auto" else (config.kind,)
    for kind in asked:
        if fits(kind):
            return kind
    raise InputError(
        f"{items:,} items under {relations} relations take {need(asked[-1]) / 2**30:,.2f} GiB as {asked[-1]}, more "
        f"than --max-memory {config.max_memory.human_readable() if config.max_memory else ''} allows."
    )


def precomputed_similarities(config: BuildConfig, items: int, pictured: bool) -> tuple[Similarity, ...]:
    """Choose the similarities that get precomputed answers; none by pictures unless all items are `pictured`."""
    asked: tuple[Similarity, ...]
    match config.answers:
        case "auto":
            asked = (Similarity.AVG,) if items <= MAX_EXACT_ITEMS else ()
        case "none":
            asked = ()
        case "all":
            asked = tuple(Similarity)
        case similarity:
            asked = (Similarity(similarity),)
    return asked if pictured else tuple(one for one in asked if View.IMAGE not in one.views)
