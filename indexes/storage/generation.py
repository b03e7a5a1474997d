"""An index as it was made at one time: an artifact that never changes.

    index/
      generation-000002/   the newest that is whole is the index
      generation-000001/   the one before, kept in case the newest is damaged
      changes.sqlite       what changed since, unless it lies on a server; see `indexes/journal/journal.py`

A generation holds the changes up to its sequence, and the journal keeps those after the sequence of the generation
before: either can be opened, with the same items.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from weakref import finalize

from indexes.config import BuildConfig
from indexes.journal.journal import Journal
from indexes.journal.postgres_store import PostgresStore, located, same_server
from indexes.journal.sqlite_store import SqliteStore
from indexes.journal.store import Store
from indexes.vectors.backends import open_vectors
from indexes.vectors.contract import VectorIndex
from indexes.vectors.faiss_backend import FOLDER
from indexes.vectors.milvus_backend import drop_unused
from model.artifact import Manifest, lock_folder, make_folder, open_artifact, read_manifest, storing
from model.console import say
from model.data.item_input import FILE as COMPOSITION
from model.data.item_input import Composition
from model.embeddings.encoding import WordedRelation
from model.errors import ArtifactError, InputError
from model.records import View

from .attributes import Attributes
from .catalogue import Catalogue
from .precomputed import FOLDER as ANSWERS
from .precomputed import Answers
from .relation_table import IndexedRelation, load_relations
from .tokens import FOLDER as TOKENS
from .tokens import TokenStore

_NAME = re.compile(r"generation-(\d{6,})")


@dataclass(frozen=True)
class Generation:
    """One generation, opened, its digests checked.

    `relations` stand in the order of the vectors. `tokens` are None if none were kept. `without_picture` are the rows
    of items of words alone, of which there are few or none. `composition` says how items that are put in are read.
    """

    path: Path
    manifest: Manifest
    catalogue: Catalogue
    attributes: Attributes
    vectors: VectorIndex
    answers: Answers
    tokens: TokenStore | None
    without_picture: tuple[int, ...]
    relations: tuple[IndexedRelation, ...]
    composition: Composition
    hold: "Hold"

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
        """Open the generation at `path`; it is not removed before the last that has it open lets it go.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        hold = Hold(path)
        manifest = open_artifact(path, "index")
        catalogue = Catalogue.open(path)
        return cls(
            path=path,
            manifest=manifest,
            catalogue=catalogue,
            attributes=Attributes(path),
            vectors=open_vectors(path / FOLDER),
            answers=Answers(path / ANSWERS),
            tokens=TokenStore.open(path / TOKENS),
            without_picture=tuple(catalogue.without_picture()),
            relations=load_relations(path),
            composition=Composition.read(path / COMPOSITION),
            hold=hold,
        )

    @classmethod
    def open_newest(cls, index: Path) -> "Generation":
        """Open the newest generation that is whole; a damaged one is told of and passed over.

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
        raise failure or _absent(index)

    def close(self) -> None:
        """Give the files back."""
        self.catalogue.close()
        self.vectors.close()
        self.hold.release()

    @property
    def sequence(self) -> int:
        """Sequence of the last change it holds."""
        return self.manifest.counts["sequence"]

    @property
    def added(self) -> tuple[WordedRelation, ...]:
        """The last of its relations: those that were added at run time."""
        return tuple(known.worded for known in self.relations if known.worded is not None)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the vectors that a change brings: views, relations of the checkpoint, components."""
        return len(View), len(self.relations) - len(self.added), self.vectors.dim

    @property
    def config(self) -> BuildConfig:
        """The options that it was made with, and those that come after it will be."""
        return _config(self.path)

    def journal(self) -> Journal:
        """The changes to it, and since."""
        store = journal_store(self.path.parent, self.config)
        return Journal(store, lineage(self.manifest.parents), self.sequence, self.shape)

    def checkpoint_seen_from(self, index: Path) -> Path:
        """Where its checkpoint lies, if it is part of the index at `index`."""
        named: str = json.loads((self.path / "checkpoint.json").read_text("utf-8"))["path"]
        return (index / named).resolve()


class Hold:
    """A shared lock on a folder, until this is garbage: whoever still searches keeps what they search."""

    def __init__(self, folder: Path) -> None:
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            raise ArtifactError(f"{folder} was removed meanwhile; open the index again.") from None
        self.release = finalize(self, os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH)


def lineage(parents: Mapping[str, str]) -> str:
    """Names an index by the digests of what it was built from, whatever was changed since."""
    return hashlib.sha256(json.dumps(dict(parents), sort_keys=True).encode()).hexdigest()


def generations(index: Path) -> list[Path]:
    """The generations of an index, oldest first."""
    if not index.is_dir():
        return []
    found = ((_NAME.fullmatch(path.name), path) for path in index.iterdir())
    return [path for _, path in sorted((int(name[1]), path) for name, path in found if name)]


def newest_generation(index: Path) -> Path:
    """Where the newest generation lies, whole or not.

    Raises:
        ArtifactError: there is none.
    """
    found = generations(index)
    if not found:
        raise _absent(index)
    return found[-1]


def next_generation(index: Path) -> Path:
    """Where to write another.

    Raises:
        ArtifactError: `index` holds something else than an index.
    """
    found = generations(index)
    if not found and index.exists() and (not index.is_dir() or not _only_remains(index)):
        raise ArtifactError(
            f"{index} exists and is not an index of this rcml; choose another --out or remove it yourself."
        )
    number = int(found[-1].name.rpartition("-")[2]) + 1 if found else 1
    return index / f"generation-{number:06d}"


def kept_config(index: Path) -> BuildConfig | None:
    """The options of the newest generation whose options can be read; None where there is none."""
    for path in reversed(generations(index)):
        with suppress(OSError, ValueError):
            return _config(path)
    return None


def journal_store(index: Path, config: BuildConfig | None) -> Store:
    """Where the changes to an index lie, by the options of a generation."""
    if config is None or config.journal is None:
        return SqliteStore(index)
    return PostgresStore(config.journal)


def prepared_journal(index: Path, url: str | None) -> str | None:
    """The address of the journal that an index is to have, as `url` says, or as it has been; its tables are made.

    Raises:
        InputError: it has another; changes would be lost.
        StorageError: the server is out of reach.
    """
    kept = kept_config(index)
    if kept is not None and not (
        url == kept.journal or (url and kept.journal and same_server(url, kept.journal))
    ):
        raise InputError(
            f"{index} keeps its changes in {journal_store(index, kept).name}, not where --journal says. Name the same, "
            "or choose another --out; `rcml index snapshot` and `restore` take them elsewhere."
        )
    if url is None:
        return None
    address = (kept and kept.journal) or located(url, index)
    PostgresStore(address).prepare()
    return address


@contextmanager
def lock_index(index: Path) -> Iterator[None]:
    """Nobody else makes a generation meanwhile; nothing is left behind of one that did not come to be.

    Raises:
        ArtifactError: another process is making one.
    """
    with storing(index):
        make_folder(index)
    try:
        with lock_folder(index, index.name):
            drop_unused(index)
            try:
                yield
            finally:
                drop_unused(index)
    except BaseException:
        with suppress(OSError):
            index.rmdir()
        raise


def write_checkpoint_path(folder: Path, checkpoint: Path, index: Path) -> None:
    """Relative to the index, so that a folder that holds both may be moved."""
    path = Path(os.path.relpath(checkpoint.resolve(), index.resolve())).as_posix()
    text = json.dumps({"path": path}, indent=2, ensure_ascii=False) + "\n"
    (folder / "checkpoint.json").write_text(text, encoding="utf-8")


def changed_since_build(index: Path, sequence: int) -> bool:
    """Whether items were changed, or relations added, after an index was built; `sequence` is the last change's."""
    try:
        counts = read_manifest(newest_generation(index), "index").counts
    except ArtifactError:
        counts = {}
    return sequence > counts.get("built", 0) or counts.get("added", 0) > 0


def remove_generations(index: Path, keep: Collection[Path]) -> None:
    """Remove all generations but those to keep, and those that another process still has open."""
    for path in set(generations(index)) - set(keep):
        with suppress(ArtifactError), lock_folder(path, path.name):
            # Renamed first: what is half removed must not look like a generation.
            path.rename(path.with_name(f".{path.name}.removed"))
    for gone in index.glob(".generation-*.removed"):
        shutil.rmtree(gone, ignore_errors=True)


def _config(generation: Path) -> BuildConfig:
    return BuildConfig.model_validate_json((generation / "config.json").read_bytes())


def _only_remains(index: Path) -> bool:
    return all(path.name.startswith(".generation-") for path in index.iterdir())


def _absent(index: Path) -> ArtifactError:
    """Why there is no generation in `index`."""
    try:
        open_artifact(
            index if not index.is_dir() or not _only_remains(index) else next_generation(index), "index"
        )
    except ArtifactError as error:
        return error
    return ArtifactError(f"{index} was made by an earlier rcml; run `rcml index build` to make it again.")
