"""A generation: an index as it was made at one time, an artifact that never changes.

    index/
      generation-000002/   the newest that is whole is the index
      generation-000001/   the one before, kept in case the newest is damaged
      changes.sqlite       what changed since, unless it lies on a server; see `indexes/journal/journal.py`

A generation holds the changes up to its sequence, and the journal keeps those after the sequence of the generation
before: either can be opened, with the same items.
"""

import fcntl
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from weakref import finalize

from indexes.config import BuildConfig
from indexes.journal.journal import Journal
from indexes.vectors.backends import VECTORS_DIR, open_vectors
from indexes.vectors.contract import VectorIndex
from model.artifact import Manifest, open_artifact
from model.console import say
from model.data.item_input import ITEM_FORMAT_FILE as COMPOSITION
from model.data.item_input import ItemFormat
from model.embeddings.free_text import FreeTextRelation
from model.errors import ArtifactError
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
)
from .precomputed import ANSWERS_DIR, PrecomputedAnswers
from .relation_table import IndexedRelation, load_relations
from .tokens import TOKENS_DIR, TokenStore


@dataclass(frozen=True)
class Generation:
    """One generation, opened, its digests checked.

    `relations` stand in the order of the vectors. `tokens` are None if none were kept. `without_picture` are the rows
    of the items without a picture, of which there are few or none. `composition` says how the encoder reads new items.
    While `lease` is held, no process removes the folder.
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

    @cached_property
    def digest(self) -> str:
        """SHA-256 that names it."""
        return self.manifest.digest

    @cached_property
    def positions(self) -> dict[str, int]:
        """Place of each relation, by its id."""
        return {known.relation_id: place for place, known in enumerate(self.relations)}

    @classmethod
    def open(cls, path: Path) -> "Generation":
        """Open the generation at `path`; no process removes it before it is closed here.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        lease = Lease(path)
        manifest = open_artifact(path, "index")
        catalogue = Catalogue.open(path)
        return cls(
            path=path,
            manifest=manifest,
            catalogue=catalogue,
            attributes=Attributes(path),
            vectors=open_vectors(path / VECTORS_DIR),
            answers=PrecomputedAnswers(path / ANSWERS_DIR),
            tokens=TokenStore.open(path / TOKENS_DIR),
            without_picture=tuple(catalogue.without_picture()),
            relations=load_relations(path),
            composition=ItemFormat.read(path / COMPOSITION),
            lease=lease,
        )

    @classmethod
    def open_newest(cls, index: Path) -> "Generation":
        """Open the newest generation that is whole; a damaged one is reported and skipped.

        Raises:
            ArtifactError: there is none, or none is whole.
        """
        failure: ArtifactError | None = None
        for path in reversed(generations(index)):
            try:
                generation = cls.open(path)
            except ArtifactError as error:
                failure = failure or error
                continue
            if failure is not None:
                say(f"{failure} Going on with {path.name} and the changes since.")
            return generation
        raise failure or no_generation_error(index)

    def close(self) -> None:
        """Close the files."""
        self.catalogue.close()
        self.vectors.close()
        self.lease.release()

    @property
    def sequence(self) -> int:
        """Sequence of the last change it holds."""
        return self.manifest.counts["sequence"]

    @property
    def added(self) -> tuple[FreeTextRelation, ...]:
        """Free-text forms of the relations that were added at run time, which are its last."""
        return tuple(known.free_text for known in self.relations if known.free_text is not None)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the vectors that a change brings: views, relations of the checkpoint, components."""
        return len(View), len(self.relations) - len(self.added), self.vectors.dim

    @property
    def config(self) -> BuildConfig:
        """Options that it was made with, and that its successors will be made with."""
        return read_options(self.path)

    def journal(self) -> Journal:
        """Open the journal of the changes since."""
        store = journal_store(self.path.parent, self.config)
        return Journal(store, lineage(self.manifest.parents), self.sequence, self.shape)

    def checkpoint_seen_from(self, index: Path) -> Path:
        """Find its checkpoint, as seen from the index at `index`, of which it is a part."""
        named: str = json.loads((self.path / CHECKPOINT_PATH_FILE).read_text("utf-8"))["path"]
        return (index / named).resolve()


class Lease:
    """A shared lock on the folder of a generation, until `release` or until this is garbage.

    `layout.remove_generations` leaves a folder that is locked, so that a search may finish with the files it has open.
    """

    def __init__(self, folder: Path) -> None:
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            raise ArtifactError(f"{folder} was removed meanwhile; open the index again.") from None
        self.release = finalize(self, os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
