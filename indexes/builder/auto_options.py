"""Choices that a build makes: the kind of vector index, and the similarities that get precomputed answers."""

from indexes.config import FILE_KINDS, MILVUS_KINDS, BuildConfig, IndexKind
from indexes.vectors.faiss_backend import resident_bytes
from model.errors import InputError
from model.similarity import Similarity, View

MAX_EXACT_ITEMS = 100_000
"""Maximum number of items for which `auto` selects an exact scan and precomputes answers."""


def choose_kind(config: BuildConfig, items: int, relations: int, dim: int) -> IndexKind:
    """Return the configured kind or, for `auto`, the first kind that fits into `config.max_memory`.

    `auto` tries an exact scan (only up to `MAX_EXACT_ITEMS` items), then an HNSW graph, then compressed codes.

    Raises:
        InputError: no kind fits into `config.max_memory`, or the configured kind does not exist where the vectors are.
    """

    def fits(kind: IndexKind) -> bool:
        return config.max_memory is None or need(kind) <= config.max_memory

    def need(kind: IndexKind) -> int:
        return items * relations * len(View) * resident_bytes(kind, dim)

    kinds, place = (FILE_KINDS, "files") if config.vectors is None else (MILVUS_KINDS, "Milvus (--vectors)")
    if config.kind not in ("auto", *kinds):
        raise InputError(
            f"--kind {config.kind} is not available for vectors in {place}. Use --kind {' or '.join(kinds)}."
        )
    if config.vectors is not None:
        return "flat" if config.kind == "auto" else config.kind
    preferred: tuple[IndexKind, ...] = ("hnsw", "ivf-rabitq")
    if items <= MAX_EXACT_ITEMS:
        preferred = ("flat", *preferred)
    asked = preferred if config.kind == "auto" else (config.kind,)
    for kind in asked:
        if fits(kind):
            return kind
    raise InputError(
        f"{items:,} items under {relations} relations need {need(asked[-1]) / 2**30:,.2f} GiB with kind {asked[-1]}, "
        f"which exceeds --max-memory {config.max_memory.human_readable() if config.max_memory else ''}. Increase "
        "--max-memory, choose a more compact --kind, or index fewer items."
    )


def precomputed_similarities(config: BuildConfig, items: int, pictured: bool) -> tuple[Similarity, ...]:
    """Return the similarities that get precomputed answers.

    Similarities that use the image view are left out unless all items have a picture (`pictured`).
    """
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
