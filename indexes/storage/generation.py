"""Generation: an immutable artifact with the state of an index at one point in time.

    index/
      generation-000002/   the newest generation, which is opened unless it is damaged
      generation-000001/   the previous generation, kept in case the newest is damaged
      changes.sqlite       recent changes, unless a server stores them; see `indexes/journal/journal.py`
      changes.mark         the last acknowledged change; see `indexes/journal/high_water_mark.py`

A generation includes the changes up to its sequence number, and the journal keeps all changes after the sequence
number of the previous generation. Either generation can therefore be opened, and both yield the same items.
"""

import fcntl
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from weakref import finalize

from indexes.config import BuildConfig
from indexes.journal.high_water_mark import HighWaterMark
from indexes.journal.journal import Journal
from indexes.vectors.backends import VECTORS_DIR, open_vectors
from indexes.vectors.contract import VectorIndex
from indexes.vectors.gpu_vectors import CPU, Cards
from model.artifact import PICTURES, Manifest, open_artifact
from model.console import say
from model.data.item_input import ITEM_FORMAT_FILE as COMPOSITION
from model.data.item_input import ItemFormat
from model.embeddings.free_text import FreeTextRelation
from model.errors import ArtifactError
from model.plain_file import damaged, decoding, plain_status, read_json
from model.similarity import View

from .attributes import Attributes
from .catalogue import Catalogue
from .layout import (
    CHECKPOINT_PATH_FILE,
    generations,
    journal_store,
    lineage,
    no_generation_error,
    read_options,
    requires_journal,
)
from .precomputed import ANSWERS_DIR, PrecomputedAnswers
from .relation_table import IndexedRelation, load_relations
from .tokens import ESTIMATE_BYTES, TOKENS_DIR, TokenStore

PARENTS = {"checkpoint", "prepared"}
"""Names of the artifacts that every generation was made from."""


@dataclass(frozen=True)
class Generation:
    """Opened generation whose digests have been checked.

    `relations` are in the order of the vectors. `tokens` is None if the index stores no tokens. `without_picture`
    contains the rows of the items without a picture. `damaged_pictures` names the pictures that are missing or of
    another size; the content of pictures is not read. `composition` specifies how the encoder reads new items. While
    `lease` is held, no process removes the folder. `cards` hold copies of the vectors, and estimates for free-text
    relations take at most `estimate_bytes` of memory.
    """

    path: Path
    manifest: Manifest
    catalogue: Catalogue
    attributes: Attributes
    vectors: VectorIndex
    answers: PrecomputedAnswers
    tokens: TokenStore | None
    without_picture: tuple[int, ...]
    relations: tuple[IndexedRelation, ...]
    composition: ItemFormat
    lease: "Lease"
    damaged_pictures: tuple[str, ...] = ()
    cards: Cards = CPU
    estimate_bytes: int = ESTIMATE_BYTES

    @cached_property
    def digest(self) -> str:
        """SHA-256 that identifies the generation."""
        return self.manifest.digest

    @cached_property
    def positions(self) -> dict[str, int]:
        """Position of each relation, by its ID."""
        return {known.relation_id: place for place, known in enumerate(self.relations)}

    @classmethod
    def open(cls, path: Path, cards: Cards = CPU, estimate_bytes: int = ESTIMATE_BYTES) -> "Generation":
        """Open the generation at `path` and copy its vectors to `cards`. No process removes it until `close` is called.

        Raises:
            ArtifactError: the generation is missing or damaged.
        """
        lease = Lease(path)
        manifest = open_artifact(path, "index")
        if (
            missing := {"items", "relations", "sequence"} - manifest.counts.keys()
            or PARENTS - manifest.parents.keys()
        ):
            raise damaged(path / "manifest.json", f"it lacks {', '.join(sorted(missing))}")
        catalogue = Catalogue.open(path)
        vectors = open_vectors(path / VECTORS_DIR, cards)
        vectors.copy_to_gpus()
        return cls(
            path=path,
            manifest=manifest,
            catalogue=catalogue,
            attributes=Attributes(path),
            vectors=vectors,
            answers=PrecomputedAnswers(path / ANSWERS_DIR, manifest.names_in(ANSWERS_DIR)),
            tokens=TokenStore(path / TOKENS_DIR, estimate_bytes) if manifest.names_in(TOKENS_DIR) else None,
            without_picture=tuple(catalogue.without_picture()),
            relations=load_relations(path),
            composition=ItemFormat.read(path / COMPOSITION),
            lease=lease,
            damaged_pictures=tuple(
                name
                for name in manifest.files
                if name.startswith(f"{PICTURES}/")
                and not _has_size(path / name, path, manifest.files[name].size)
            ),
            cards=cards,
            estimate_bytes=estimate_bytes,
        )

    @classmethod
    def open_newest(
        cls, index: Path, cards: Cards = CPU, estimate_bytes: int = ESTIMATE_BYTES
    ) -> "Generation":
        """Open the newest undamaged generation; a damaged generation is reported and skipped. See `open`.

        Raises:
            ArtifactError: there is no generation, or all generations are damaged.
        """
        failure: ArtifactError | None = None
        for path in reversed(generations(index)):
            try:
                generation = cls.open(path, cards, estimate_bytes)
            except ArtifactError as error:
                failure = failure or error
                continue
            if failure is not None:
                say(f"{failure} Using {path.name} and the changes made since then.")
            return generation
        raise failure or no_generation_error(index)

    def close(self) -> None:
        """Close the files and release the lease."""
        self.catalogue.close()
        self.vectors.close()
        self.lease.release()

    def successor(self, path: Path) -> "Generation":
        """Open another generation of the same index, at `path`, with the same memory; see `open`."""
        return Generation.open(path, self.cards, self.estimate_bytes)

    @property
    def sequence(self) -> int:
        """Sequence number of the last change that the generation includes."""
        return self.manifest.counts["sequence"]

    @property
    def added(self) -> tuple[FreeTextRelation, ...]:
        """Free-text forms of the relations that were added at run time, which come last in `relations`."""
        return tuple(known.free_text for known in self.relations if known.free_text is not None)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the vectors in a change: views, relations of the checkpoint, components."""
        return len(View), len(self.relations) - len(self.added), self.vectors.dim

    @property
    def config(self) -> BuildConfig:
        """Options that this generation was built with, and that its successors will be built with."""
        return read_options(self.path)

    def journal(self) -> Journal:
        """Open the journal of the changes made after this generation."""
        index = self.path.parent
        store, mark = journal_store(index, self.config), HighWaterMark(index)
        required = requires_journal(self.manifest.counts)
        return Journal(store, lineage(self.manifest.parents), self.sequence, self.shape, mark, required)

    def checkpoint_seen_from(self, index: Path) -> Path:
        """Return the path of the checkpoint, which is stored relative to the index folder `index`.

        Raises:
            ArtifactError: the file with the path is damaged, or there is nothing at the path.
        """
        path = self.path / CHECKPOINT_PATH_FILE
        with decoding(path):
            named: str = read_json(path)["path"]
            found = (index / named).resolve()
        if not found.exists():
            raise ArtifactError(
                f"The index at {index} belongs to the checkpoint at {found}, which does not exist. Put its checkpoint "
                "there, or name the folder of its checkpoint with --checkpoint."
            )
        return found


def _has_size(path: Path, folder: Path, size: int) -> bool:
    try:
        return plain_status(path, folder).st_size == size
    except (ArtifactError, FileNotFoundError):
        return False


class Lease:
    """Shared lock on the folder of a generation, held until `release` or until the object is garbage-collected.

    `layout.remove_generations` skips locked folders, so that a running search can finish with the files it has open.
    """

    def __init__(self, folder: Path) -> None:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # a FIFO would wait for a writer
        except FileNotFoundError:
            raise ArtifactError(
                f"{folder} was removed before it could be opened. Open the index again."
            ) from None
        except NotADirectoryError:
            raise ArtifactError(f"{folder} is not a folder, so it is not a generation. Remove it.") from None
        self.release = finalize(self, os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
