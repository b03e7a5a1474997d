"""Memory, disk space and time that a build will need, which `rcml index build` prints before it starts.

The sizes are computed from the number of items and the options. docs/operations.md ("Sizing") has the same formulas.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from indexes.config import BuildConfig, IndexKind
from indexes.storage.table_maker import ANSWERS_PER_ITEM, ENTRY
from indexes.storage.tokens import COMPONENTS, ESTIMATE_BYTES
from indexes.vectors.ann_index import ANN_INDEXES
from indexes.vectors.build_rate import seconds_to_build
from indexes.vectors.contract import MAX_SCANNED_ITEMS
from indexes.vectors.faiss_backend import ann_bytes
from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared_data import Prepared
from model.disk_space import free_space
from model.errors import InputError
from model.similarity import View

from .auto_options import automatic_kinds, check_serving_memory, memory_limit, resident_size
from .machine import machine_memory, readable_size
from .shards import SHARDS_DIR

PROCESS_BYTES = 640 * 2**20
"""Memory of a building process besides the vectors and the network; 568 MiB were measured with the sample shop."""

NETWORK_COPIES = 2
"""Memory that the network takes while it encodes, as a multiple of its checkpoint."""

TOKENS_OF_TEXT, TOKENS_OF_PICTURE = 20, 50
"""Number of stored tokens of an item, about, with ViT-B/32."""

CATALOGUE_BYTES = 400
"""Bytes that an item takes in the catalogue and the attributes besides its texts."""


@dataclass(frozen=True)
class BuildNeeds:
    """Needs of a build with an index of `kind`: sizes in bytes, and seconds for the vectors.

    `serving` is the memory that a server needs for the vectors, `building` the memory of the build. `disk` is the space
    for the new generation and for the encoded items, which are removed afterwards. `free_text` is the memory for the
    low-rank tokens with most components, 0 without tokens.
    """

    kind: IndexKind
    serving: int
    building: int
    disk: int
    seconds: float
    free_text: int = 0

    def check(self, config: BuildConfig, items: int, relations: int, dim: int) -> None:
        """Check that the build and the index fit into the memory and on the disk.

        Raises:
            InputError: something does not fit; the message has the sizes and the remedy.
        """
        if config.vectors is None:
            check_serving_memory(config, self.kind, items, relations, dim)
        if self.building > machine_memory():
            raise InputError(
                f"Building needs {readable_size(self.building)} of memory, but this machine has "
                f"{readable_size(machine_memory())}. Build on a larger machine, choose --kind ivf-rabitq, or index "
                "fewer items."
            )
        free = free_space(config.out)
        if self.disk > free + _encoded_before(config.out / SHARDS_DIR):
            raise InputError(
                f"Building needs {readable_size(self.disk)} on the disk of {config.out}, which has "
                f"{readable_size(free)} free. Free disk space, choose another --out, pass --answers none, or index "
                "fewer items."
            )

    def describe(self, config: BuildConfig, items: int, relations: int, dim: int) -> list[str]:
        """Return lines that say what the build needs, and why `auto` chose the kind."""
        lines = []
        if config.kind == "auto" and config.vectors is None:
            needs = (
                f"{kind} {readable_size(resident_size(kind, items, relations, dim))}"
                for kind in automatic_kinds(items)
            )
            limit = (
                "three quarters of this machine's" if config.max_memory is None else "as --max-memory says"
            )
            lines.append(
                f"Kind {self.kind}: the vectors may take {readable_size(memory_limit(config))} of memory when served "
                f"({limit}), and would need {', '.join(needs)}."
            )
        lines.append(
            f"{items:,} items under {relations} relations need {readable_size(self.serving)} of memory for vectors to "
            f"serve; {readable_size(self.building)} of memory and {readable_size(self.disk)} of disk to build; and "
            f"about {readable_time(self.seconds)} to index the vectors once the items are embedded."
        )
        if self.free_text:
            lines.append(
                f"Free-text relations need up to {readable_size(self.free_text)} more to serve, which all processes "
                f"share, and up to {readable_size(ESTIMATE_BYTES)} in each process (`rcml serve --free-text-memory`)."
            )
        return lines


def build_needs(
    config: BuildConfig,
    kind: IndexKind,
    checkpoint: Checkpoint,
    prepared: Prepared,
    relations: int,
    dim: int,
    similarities: int,
) -> BuildNeeds:
    """Compute the needs of a build with precomputed answers for a number of `similarities`.

    If the index has ANN indexes, the function also measures how fast this machine builds one, which takes a second.
    """
    items = len(prepared.items)
    files = items * relations * len(View)
    in_files = config.vectors is None
    ann = ANN_INDEXES[kind] if in_files and kind != "flat" and items > MAX_SCANNED_ITEMS else None
    codes = 0 if ann is None else ann_bytes(kind, dim, items)
    stored = TOKENS_OF_TEXT * items + TOKENS_OF_PICTURE * sum(bool(item.picture) for item in prepared.items)
    tokens, low_rank = (2 * dim * stored, low_rank_bytes(dim) * stored) if config.token_store else (0, 0)
    texts = sum(len(item.text) + len(item.title) + len(item.description) for item in prepared.items)
    pictures = sum(
        record.size for name, record in prepared.manifest.files.items() if name.startswith("pictures/")
    )
    network = NETWORK_COPIES * sum(record.size for record in checkpoint.manifest.files.values())
    encoded = files * 2 * dim + tokens
    answers = items * relations * similarities * ANSWERS_PER_ITEM * ENTRY.itemsize
    generation = answers + tokens + low_rank + items * CATALOGUE_BYTES + 2 * texts + pictures
    if in_files:
        generation += files * (2 * dim + codes)
    return BuildNeeds(
        kind=kind,
        serving=resident_size(kind, items, relations, dim) if in_files else 0,
        building=PROCESS_BYTES + network + items * (2 * 2 * dim + codes),
        disk=encoded + generation,
        seconds=0.0 if ann is None else relations * len(View) * seconds_to_build(kind, items, dim),
        free_text=low_rank,
    )


def low_rank_bytes(dim: int) -> int:
    """Return the bytes of the low-rank projection of a token at most: one for each component, four for its length."""
    return min(COMPONENTS[-1], dim) + 4


def _encoded_before(folder: Path) -> int:
    """Return the bytes of the items that an interrupted build left in `folder`: they are used again, or removed."""
    with suppress(FileNotFoundError):
        return sum(path.stat().st_size for path in folder.iterdir())
    return 0


def readable_time(seconds: float) -> str:
    """Return a rough duration in words."""
    if seconds < 120:
        return f"{max(round(seconds), 1)} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7_200 else f"{seconds / 3_600:.1f} hours"
