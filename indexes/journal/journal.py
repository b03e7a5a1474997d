"""Journal of the changes to an index: every upsert and deletion is durable before it is acknowledged.

The journal is a file in the index folder, or a database that several machines share; see
`indexes/journal/store.py`. Each change has a sequence number that is never reused. An index consists of a generation
and the changes made after it.

Concurrent writers share a commit: one of them writes the changes of all waiting writers in one transaction with one
fsync (group commit; DeWitt et al. 1984). A change therefore takes as long as one fsync, and 64 concurrent changes
take little longer.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from operator import ne
from pathlib import Path
from threading import Condition, Lock
from typing import Any

import numpy as np
from jaxtyping import Float16
from numpy import ndarray
from safetensors.numpy import load, save
from sqlalchemy import Connection, Engine, Row, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from model.artifact import PICTURES
from model.embeddings.encoding import ItemTokens, TokenRows
from model.errors import ArtifactError, MismatchError, StorageError
from model.records import Item

from .store import CHANGES, HEAD, LINEAGE, LOCKED_HEAD, Store

_NEWEST = select(func.max(CHANGES.c.sequence))
_SINCE = (
    select(*(column for column in CHANGES.c if column.name != "picture"))
    .where(CHANGES.c.sequence > bindparam("after"))
    .order_by(CHANGES.c.sequence)
)
_PICTURE = select(CHANGES.c.picture).where(CHANGES.c.sequence == bindparam("sequence"))
_TRIM = delete(CHANGES).where(CHANGES.c.sequence <= bindparam("upto"))


@dataclass(frozen=True)
class Change:
    """Upsert of an item, or its deletion if `item` is None.

    `vectors` contains a vector for each view, in the order of `View`, under each relation. `tokens` contains the
    tokens of the item if the index stores tokens. `picture` is the content of the file that `item.picture` names. It
    is not read back together with the other fields; see `Journal.picture`.
    """

    item_id: str
    item: Item | None = None
    vectors: Float16[ndarray, "views relations dim"] | None = None
    picture: bytes = b""
    picture_sha256: str = ""
    tokens: ItemTokens | None = None

    @classmethod
    def put(
        cls,
        item: Item,
        vectors: Float16[ndarray, "views relations dim"],
        picture: bytes,
        tokens: ItemTokens | None = None,
    ) -> "Change":
        """Create the upsert of an item with its picture. The suffix of `item.picture` determines the picture format."""
        return cls(item.item_id, item, vectors, picture, hashlib.sha256(picture).hexdigest(), tokens)


@dataclass(frozen=True)
class JournalEntry:
    """Durable change with its sequence number. `change.item.picture` is the permanent file name of the picture.

    `existed` tells whether an item had this ID before the change. Only `Journal.append` sets it.
    """

    sequence: int
    change: Change
    existed: bool = False


@dataclass
class _Waiting:
    """Changes of one waiting writer, and their outcome."""

    rows: list[dict[str, Any]]
    changes: Sequence[Change]
    recorded: list[JournalEntry] = field(default_factory=list)
    failure: StorageError | None = None
    done: bool = False


Existed = Callable[[int, Sequence[str]], Sequence[bool]]
"""Function that tells which item IDs exist after the change with a given sequence number."""


class Journal:
    """Changes to an index; safe to use from many threads and processes."""

    def __init__(self, store: Store, lineage: str, start: int, shape: tuple[int, int, int]) -> None:
        """Open the journal in `store`.

        `lineage` identifies the index that the changes belong to. Changes up to sequence number `start` are obsolete:
        the generation includes them, or they belong to an index that the generation replaced. `shape` is the shape of
        the vectors of a change.
        """
        self._store = store
        self._lineage = lineage
        self._start = start
        self._shape = shape
        self._queue: list[_Waiting] = []
        self._changed = Condition()
        self._led = False
        self._committing = Lock()
        self._engine: Engine | None = None
        self._writable = False

    def close(self) -> None:
        """Close the connections."""
        with self._committing:
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    def append(
        self,
        changes: Sequence[Change],
        publish: Callable[[list[JournalEntry]], None] = lambda recorded: None,
        existing: Existed = lambda sequence, item_ids: [False] * len(item_ids),
    ) -> list[JournalEntry]:
        """Store all `changes` durably, or none of them, and return them with their sequence numbers.

        `publish` is called once for all writers that share the commit, after the commit and before any of them
        returns. `existing` is called within the transaction, when no other writer can commit. It tells which item IDs
        exist, and thus which changes create an item and which replace one.

        Raises:
            ReadOnlyError: this user may not write to the journal; nothing was changed.
            StorageError: the disk is full or failing, the server is unreachable, or the journal is damaged or belongs
                to another index; nothing was changed. In the rare case that a server fails during a commit and does
                not recover, the message says that the outcome is unknown.
        """
        waiting = _Waiting([_row(change) for change in changes], changes)
        with self._changed:
            self._queue.append(waiting)
            while self._led and not waiting.done:
                self._changed.wait()
            if not waiting.done:
                self._led = True
                together, self._queue = self._queue, []
        if not waiting.done:
            try:
                with self._committing:
                    self._commit(together, publish, existing)
            finally:
                with self._changed:
                    self._led = False
                    self._changed.notify_all()
        if waiting.failure is not None:
            raise waiting.failure
        return waiting.recorded

    def newest(self) -> int:
        """Return the sequence number of the newest stored change; 0 if there is none."""
        if (engine := self.engine()) is None:
            return 0
        with self._store.faults(), self._store.reading(engine) as connection:
            return connection.execute(_NEWEST).scalar_one() or 0

    def since(self, sequence: int) -> list[JournalEntry]:
        """Read the stored changes after `sequence`, oldest first.

        Raises:
            ArtifactError: a change is damaged or missing.
            StorageError: the server is unreachable.
        """
        if (engine := self.engine()) is None:
            return []
        with self._sound(), self._store.reading(engine) as connection:
            found = [self._recorded(row) for row in connection.execute(_SINCE, {"after": sequence})]
            head = connection.execute(HEAD).one_or_none()
            expected = range(0) if head is None else range(max(sequence, head.trimmed) + 1, head.given + 1)
            there = (recorded.sequence for recorded in found)
            if len(found) != len(expected) or any(map(ne, there, expected)):
                raise self._damaged(f"{len(found)} of {len(expected)} changes are present")
        return found

    def picture(self, recorded: JournalEntry) -> bytes | None:
        """Read the picture of an upserted item; None if the change was trimmed from the journal.

        Raises:
            ArtifactError: the picture is damaged.
            StorageError: the server is unreachable.
        """
        engine = self.engine()
        assert engine is not None, "a change was recorded, so the journal exists"
        with self._sound(), self._store.reading(engine) as connection:
            row = connection.execute(_PICTURE, {"sequence": recorded.sequence}).one_or_none()
        if row is None:
            return None
        picture = row.picture or b""
        if hashlib.sha256(picture).hexdigest() != recorded.change.picture_sha256:
            raise self._damaged(f"the picture of change {recorded.sequence} does not match its digest")
        return picture

    def copy(self, folder: Path) -> None:
        """Copy the durable changes into `folder` without blocking writers; do nothing if there has been no change.

        Raises:
            StorageError: the disk is full or failing, or the server is unreachable.
        """
        if (engine := self.engine()) is not None:
            self._store.copy(engine, folder)

    def trim(self, sequence: int) -> None:
        """Delete the changes up to sequence number `sequence`; a generation must include them."""
        with self._committing:
            if self.engine() is not None and (engine := self.engine(create=True)) is not None:
                with self._store.faults(), self._store.writing(engine) as connection:
                    connection.execute(LOCKED_HEAD)
                    connection.execute(_TRIM, {"upto": sequence})
                    connection.execute(
                        update(LINEAGE).where(LINEAGE.c.trimmed < sequence), {"trimmed": sequence}
                    )

    def _commit(
        self,
        together: list[_Waiting],
        publish: Callable[[list[JournalEntry]], None],
        existing: Existed,
    ) -> None:
        try:
            engine = self.engine(create=True)
            assert engine is not None
            with self._store.writing(engine) as connection:
                head = self._locked_head(connection)
                if head is None or head.lineage != self._lineage:
                    raise StorageError(
                        "The change was not stored, because the index was rebuilt. Open the index again, then send the "
                        "change again."
                    )
                _number(together, head.given, existing)
                rows = [row for waiting in together for row in waiting.rows]
                connection.execute(insert(CHANGES), rows)
                connection.execute(update(LINEAGE), {"given": rows[-1]["sequence"]})
        except StorageError as error:
            for waiting in together:
                waiting.failure = error
        except (DBAPIError, OSError, ArtifactError) as error:
            for waiting in together:
                reason = error.orig if isinstance(error, DBAPIError) else error
                waiting.failure = StorageError(
                    f"The change could not be stored in {self._store.name} ({reason}). Nothing was changed. "
                    f"{self._store.remedy}, then send the change again."
                )
        else:
            publish([recorded for waiting in together for recorded in waiting.recorded])
        finally:
            for waiting in together:
                waiting.done = True

    @property
    def waiting(self) -> int:
        """Number of writers that wait for the commit of another writer."""
        return len(self._queue)

    def engine(self, create: bool = False) -> Engine | None:
        """Return the engine of the database, opened on first use; None if there has been no change.

        With `create`, a missing database is created, and the engine can write.

        Raises:
            ReadOnlyError: `create` is set, but this user may not write.
            MismatchError: the journal belongs to another index.
            ArtifactError: the journal is damaged.
            StorageError: the journal is unreachable.
        """
        if self._engine is not None and (self._writable or not create):
            return self._engine
        writable = create or not self._store.read_only
        if (engine := self._store.engine(create)) is not None:
            try:
                with nullcontext() if create else self._sound():
                    self._check(engine, writable)
            except BaseException:
                engine.dispose()
                raise
            self._engine, self._writable = engine, writable
        return self._engine

    def _check(self, engine: Engine, writable: bool) -> None:
        """Check that the journal belongs to this index; initialize it if it is empty or obsolete, and `writable`."""
        with (self._store.writing if writable else self._store.reading)(engine) as connection:
            head = self._locked_head(connection)
            if head is not None and head.lineage == self._lineage and head.given >= self._start:
                return
            foreign = head is None or head.lineage != self._lineage
            if foreign and (connection.execute(_NEWEST).scalar_one() or 0) > self._start:
                raise MismatchError(
                    f"{self._store.name} holds changes to another index. Replace it with the journal of this index, "
                    "or remove it to continue without the changes made since the newest generation."
                )
            if not writable:
                return
            connection.execute(delete(CHANGES))
            beginning = {"lineage": self._lineage, "trimmed": self._start, "given": self._start}
            connection.execute(insert(LINEAGE) if head is None else update(LINEAGE), beginning)

    def _locked_head(self, connection: Connection) -> Row[Any] | None:
        """Read the row of `lineage` and lock it until the transaction ends."""
        heads = connection.execute(LOCKED_HEAD).all()
        if len(heads) > 1 or any(not isinstance(number, int) for head in heads for number in head[1:]):
            raise self._damaged("invalid lineage")
        return heads[0] if heads else None

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """Convert errors caused by damaged rows to an `ArtifactError`, and database errors as in `Store.faults`."""
        try:
            with self._store.faults():
                yield
        except (AttributeError, TypeError, ValueError, OverflowError, MemoryError) as error:
            raise self._damaged(error) from None

    def _damaged(self, reason: object) -> ArtifactError:
        return ArtifactError(f"{self._store.name} is damaged ({reason}). {self._store.repair}.")

    def _recorded(self, row: Row[Any]) -> JournalEntry:
        item = None
        vectors = tokens = None
        if _digest(row.item_id, row.item, row.vectors, row.tokens) != row.digest:
            raise self._damaged(f"change {row.sequence} does not match its digest")
        picture_sha256 = ""
        if row.item is not None:
            content = json.loads(row.item)
            picture_sha256 = content.pop("picture_sha256")
            item = Item(**{**content, "categories": tuple(content["categories"])})
            vectors = np.frombuffer(row.vectors, dtype=np.float16).reshape(self._shape)
            tokens = None if row.tokens is None else _tokens(row.tokens)
        change = Change(row.item_id, item, vectors, picture_sha256=picture_sha256, tokens=tokens)
        return JournalEntry(row.sequence, _named(change, row.sequence))


def _number(together: Sequence[_Waiting], given: int, existing: Existed) -> None:
    """Give the changes the sequence numbers after `given`, and record which items exist before each change."""
    item_ids = [change.item_id for waiting in together for change in waiting.changes]
    there = dict(zip(item_ids, existing(given, item_ids), strict=True))
    sequence = itertools.count(given + 1)
    for waiting in together:
        for change, row in zip(waiting.changes, waiting.rows, strict=True):
            row["sequence"] = number = next(sequence)
            waiting.recorded.append(JournalEntry(number, _named(change, number), there[change.item_id]))
            there[change.item_id] = change.item is not None


def _row(change: Change) -> dict[str, Any]:
    item = vectors = tokens = None
    if change.item is not None:
        assert change.vectors is not None
        content = {**asdict(change.item), "picture_sha256": change.picture_sha256}
        item = json.dumps(content, ensure_ascii=False)
        vectors = change.vectors.tobytes()
        if change.tokens is not None:
            tokens = save({"text": change.tokens.text.states, "image": change.tokens.image.states})
    return {
        "item_id": change.item_id,
        "item": item,
        "picture": change.picture or None,
        "vectors": vectors,
        "tokens": tokens,
        "digest": _digest(change.item_id, item, vectors, tokens),
    }


def _tokens(content: bytes) -> ItemTokens:
    states = load(content)
    return ItemTokens(
        *(TokenRows(states[name], np.array([0, len(states[name])])) for name in ("text", "image"))
    )


def _named(change: Change, sequence: int) -> Change:
    """Give the picture of the item a unique file name, and drop the picture content from the change."""
    if change.item is None or not change.item.picture:
        return change
    name = f"{PICTURES}/change-{sequence:09d}{Path(change.item.picture).suffix}"
    # The content may be large, and the journal already stores it.
    return replace(change, item=replace(change.item, picture=name), picture=b"")


def _digest(item_id: str, item: str | None, vectors: bytes | None, tokens: bytes | None) -> bytes:
    parts = [item_id.encode(), b"" if item is None else item.encode(), vectors or b"", tokens or b""]
    return hashlib.sha256(b"".join(len(part).to_bytes(8) + part for part in parts)).digest()
