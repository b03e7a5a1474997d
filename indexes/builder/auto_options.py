"""Choices that a build makes: the kind of vector index, and the similarities that get precomputed answers."""

from indexes.config import FILE_KINDS, MILVUS_KINDS, BuildConfig, IndexKind
from indexes.storage.table_maker import MAX_EXACT_ITEMS
from indexes.vectors.faiss_backend import resident_bytes
from model.errors import InputError
from model.similarity import Similarity, View

from .machine import machine_memory, readable_size

MAX_SCANNED_BY_AUTO = 100_000
"""Maximum number of items for which `auto` selects an exact scan."""

MAX_ANSWERED_ITEMS = 1_000_000
"""Maximum number of items for which `auto` precomputes answers that an ANN index finds."""

SERVING_SHARE = 0.75
"""Share of the memory of the machine that vectors may use by default. The network and the catalogue need the rest."""


def memory_limit(config: BuildConfig) -> int:
    """Return the bytes of memory that a server may use for vectors: `--max-memory`, or a share of this machine."""
    return int(machine_memory() * SERVING_SHARE) if config.max_memory is None else config.max_memory


def resident_size(kind: IndexKind, items: int, relations: int, dim: int) -> int:
    """Estimate the bytes of memory that a server needs for the vectors of all relations and views in files."""
    return items * relations * len(View) * resident_bytes(kind, dim, items)


def choose_kind(
    config: BuildConfig, items: int, relations: int, dim: int, before: IndexKind | None = None
) -> IndexKind:
    """Return the configured kind or, for `auto`, the first kind that fits into `memory_limit`.

    `auto` tries the `automatic_kinds`. Without `--max-memory`, it chooses the last even if it does not fit, so that an
    index that grew can still be compacted. It then also keeps the kind `before`, that of the generation to replace, if
    it would try this kind: otherwise the memory of the machine that compacts an index would change its kind.

    Raises:
        InputError: no kind fits into `config.max_memory`, or the configured kind does not exist where the vectors are.
    """
    kinds, place = (FILE_KINDS, "files") if config.vectors is None else (MILVUS_KINDS, "Milvus (--vectors)")
    if config.kind not in ("auto", *kinds):
        raise InputError(
            f"--kind {config.kind} is not available for vectors in {place}. Use --kind {' or '.join(kinds)}."
        )
    if config.vectors is not None:
        return "flat" if config.kind == "auto" else config.kind
    asked = automatic_kinds(items) if config.kind == "auto" else (config.kind,)
    if before in asked and config.max_memory is None:
        return before
    for kind in asked:
        if resident_size(kind, items, relations, dim) <= memory_limit(config):
            return kind
    if config.max_memory is not None:
        check_serving_memory(config, asked[-1], items, relations, dim)
    return asked[-1]


def automatic_kinds(items: int) -> tuple[IndexKind, ...]:
    """Return the kinds that `auto` tries for a number of items, in order of preference."""
    return ("flat", "hnsw", "ivf-rabitq") if items <= MAX_SCANNED_BY_AUTO else ("hnsw", "ivf-rabitq")


def check_serving_memory(config: BuildConfig, kind: IndexKind, items: int, relations: int, dim: int) -> None:
    """Check that a server has enough memory for the vectors of an index of `kind`.

    Raises:
        InputError: the vectors exceed `memory_limit`.
    """
    need, limit = resident_size(kind, items, relations, dim), memory_limit(config)
    if need <= limit:
        return
    if config.max_memory is None:
        exceeded = (
            f"three quarters of this machine's memory ({readable_size(limit)} of "
            f"{readable_size(machine_memory())}). Pass --max-memory if a larger machine serves the index"
        )
    else:
        exceeded = f"--max-memory {config.max_memory.human_readable()}. Increase --max-memory"
    raise InputError(
        f"{items:,} items under {relations} relations need {readable_size(need)} of memory with kind {kind}, which "
        f"exceeds {exceeded}, choose a more compact --kind, or index fewer items."
    )


def precomputed_similarities(
    config: BuildConfig, kind: IndexKind, items: int, pictured: bool
) -> tuple[Similarity, ...]:
    """Return the similarities that get precomputed answers in an index of `kind`.

    Similarities that use the image view are left out unless all items have a picture (`pictured`).
    """
    asked: tuple[Similarity, ...]
    match config.answers:
        case "auto":
            # A search in Milvus, or of all vectors, takes too long to repeat for every item.
            searchable = config.vectors is None and kind != "flat"
            most = MAX_ANSWERED_ITEMS if searchable else MAX_EXACT_ITEMS
            asked = (Similarity.AVG,) if items <= most else ()
        case "none":
            asked = ()
        case "all":
            asked = tuple(Similarity)
        case similarity:
            asked = (Similarity(similarity),)
    return asked if pictured else tuple(one for one in asked if View.IMAGE not in one.views)
