"""Journal of the changes to an index: every upsert and deletion is durable before it is acknowledged.

The journal is a file in the index folder, or a database that several machines share (`indexes/journal/store.py`). Each
change has a sequence number that is never reused. An index is a generation and the changes made after it.

Concurrent writers share a commit: one of them writes the changes of all waiting writers in one transaction with one
fsync (group commit; DeWitt et al. 1984). A change therefore takes as long as one fsync, and 64 concurrent changes
take little longer.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from operator import ne
from pathlib import Path
from threading import Condition, Lock
from typing import Any

from sqlalchemy import Connection, Engine, Row, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from model.errors import ArtifactError, MismatchError, StorageError

from .change import Change, JournalEntry, digest, entry_of, named, row_of
from .high_water_mark import HighWaterMark, Mark, lost_changes
from .sqlite_store import SqliteStore
from .store import CHANGES, HEAD, LINEAGE, LOCKED_HEAD, Store

LOST_ITEM_ID = ""
"""Item ID in the entry of a change that was lost. No item has this ID."""

_NEWEST = select(func.max(CHANGES.c.sequence))
_SINCE = (
    select(*(column for column in CHANGES.c if column.name != "picture"))
    .where(CHANGES.c.sequence > bindparam("after"))
    .order_by(CHANGES.c.sequence)
)
_PICTURE = select(CHANGES.c.picture).where(CHANGES.c.sequence == bindparam("sequence"))
_DIGEST = select(CHANGES.c.digest).where(CHANGES.c.sequence == bindparam("sequence"))
_TRIM = delete(CHANGES).where(CHANGES.c.sequence <= bindparam("upto"))


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

    def __init__(
        self,
        store: Store,
        lineage: str,
        start: int,
        shape: tuple[int, int, int],
        mark: HighWaterMark | None = None,
        required: bool = False,
    ) -> None:
        """Open the journal in `store`.

        `lineage` identifies the index that the changes belong to. Changes up to sequence number `start` are obsolete:
        the generation includes them, or they belong to an index that the generation replaced. `shape` is the shape of
        the vectors of a change. `mark` tells the last acknowledged change; without it, lost changes are not noticed.
        If `required`, the database and the mark were created together with the index, so neither may be missing.
        """
        self._store = store
        self.lineage = lineage
        self._start = start
        self._shape = shape
        self._mark = mark
        self._required = required
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
            if self._mark is not None:
                self._mark.close()

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
        waiting = _Waiting([row_of(change) for change in changes], changes)
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

    def last(self) -> int:
        """Return the last assigned sequence number, even if its change was trimmed; 0 if there is none."""
        if (engine := self.engine(create=True)) is None:
            return 0
        with self._store.faults(), self._store.reading(engine) as connection:
            return int(connection.execute(HEAD).one().given)

    def digest(self, sequence: int) -> bytes:
        """Return the digest of the change `sequence`; empty if the journal does not have it."""
        if (engine := self.engine()) is None:
            return b""
        with self._store.faults(), self._store.reading(engine) as connection:
            return connection.execute(_DIGEST, {"sequence": sequence}).scalar_one_or_none() or b""

    def since(self, sequence: int) -> list[JournalEntry]:
        """Read the stored changes after `sequence`, oldest first.

        Raises:
            ArtifactError: a change is damaged or missing.
            StorageError: the server is unreachable.
        """
        if (engine := self.engine()) is None:
            return []
        with self._sound(), self._store.reading(engine) as connection:
            found = [entry_of(row, self._shape) for row in connection.execute(_SINCE, {"after": sequence})]
            head = connection.execute(HEAD).one_or_none()
            expected = range(0) if head is None else range(max(sequence, head.trimmed) + 1, head.given + 1)
            if head is not None and head.lineage == self.lineage and head.given < sequence > self._start:
                raise self._lost(head.given, f"change {sequence} was read before", sequence)
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
        """Copy the durable changes and their high-water mark into `folder` without blocking writers.

        Raises:
            StorageError: the disk is full or failing, or the server is unreachable.
        """
        if (engine := self.engine()) is not None:
            self._store.copy(engine, folder)
        store, mark = SqliteStore(folder), HighWaterMark(folder)
        store.prepare()
        copied = Journal(store, self.lineage, self._start, self._shape, mark)
        try:
            copied.engine(create=True)  # writes the mark
        except DBAPIError as error:  # a failing disk, since the copy was just written
            raise StorageError(f"{store.name} could not be written ({error.orig}). {store.remedy}.") from None
        copied.close()

    def fill(self, upto: int) -> None:
        """Record that the changes after the last one, up to number `upto`, are lost.

        Each gets an entry without an item ID, which changes nothing. Numbers of lost changes are thus not reused.
        """
        engine = self.engine(create=True)
        assert engine is not None
        with self._store.faults(), self._store.writing(engine) as connection:
            head = self._locked_head(connection)
            assert head is not None, "an open journal has a head"
            empty = {"item_id": LOST_ITEM_ID, "digest": digest(LOST_ITEM_ID, None, None, None)}
            if rows := [{"sequence": number, **empty} for number in range(head.given + 1, upto + 1)]:
                connection.execute(insert(CHANGES), rows)
                connection.execute(update(LINEAGE), {"given": upto})

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
                if head is None or head.lineage != self.lineage:
                    raise StorageError(
                        "The change was not stored, because the index was rebuilt. Open the index again, then send the "
                        "change again."
                    )
                _number(together, head.given, existing)
                rows = [row for waiting in together for row in waiting.rows]
                connection.execute(insert(CHANGES), rows)
                connection.execute(update(LINEAGE), {"given": rows[-1]["sequence"]})
            self._advance(rows[-1]["sequence"], rows[-1]["digest"])
        except StorageError as error:
            for waiting in together:
                waiting.failure = error
        except BaseException as error:
            # Unexpected errors too, or the other writers would take their changes for stored.
            for waiting in together:
                reason = error.orig if isinstance(error, DBAPIError) else error
                waiting.failure = StorageError(
                    f"The change could not be stored in {self._store.name} ({reason}). Nothing was changed. "
                    f"{self._store.remedy}, then send the change again."
                )
            if not isinstance(error, DBAPIError | OSError | ArtifactError):
                raise
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
            LostChangesError: the journal is missing, or lacks changes that were acknowledged.
            ArtifactError: the journal is damaged.
            StorageError: the journal is unreachable.
        """
        if self._engine is not None and (self._writable or not create):
            return self._engine
        mark = self._read_mark()
        if (self._required or mark is not None) and self._store.engine() is None:
            raise self._lost(self._start, "the file is missing", *(mark.acknowledged if mark else ()))
        writable = create or not self._store.read_only
        if (engine := self._store.engine(create)) is not None:
            try:
                with nullcontext() if create else self._sound():
                    self._check(engine, writable, mark)
            except BaseException:
                engine.dispose()
                raise
            self._engine, self._writable = engine, writable
        return self._engine

    def _check(self, engine: Engine, writable: bool, mark: Mark | None) -> None:
        """Check that the journal belongs to this index and has the change that `mark` names.

        If it is empty or obsolete, and `writable`, initialize it.
        """
        with (self._store.writing if writable else self._store.reading)(engine) as connection:
            head = self._locked_head(connection)
            self._compare(connection, head, mark)
            if head is not None and head.lineage == self.lineage and head.given >= self._start:
                if mark is None and writable:
                    last = connection.execute(_DIGEST, {"sequence": head.given}).scalar_one_or_none()
                    self._advance(head.given, last or b"")
                return
            foreign = head is None or head.lineage != self.lineage
            if foreign and (connection.execute(_NEWEST).scalar_one() or 0) > self._start:
                raise MismatchError(
                    f"{self._store.name} holds changes to another index. Replace it with the journal of this index, "
                    "or run `rcml index accept-loss` to continue without the changes made since the newest generation."
                )
            if not writable:
                return
            connection.execute(delete(CHANGES))
            beginning = {"lineage": self.lineage, "trimmed": self._start, "given": self._start}
            connection.execute(insert(LINEAGE) if head is None else update(LINEAGE), beginning)
            self._advance(self._start, b"")

    def _advance(self, sequence: int, last: bytes) -> None:
        """Move the mark to the change `sequence` with the digest `last`."""
        if self._mark is None:
            return
        try:
            self._mark.advance(self.lineage, sequence, last)
        except OSError as error:
            raise StorageError(
                f"{self._mark.path} could not be written ({error}). The change may be stored, but its loss would not "
                f"be noticed. {self._store.remedy}, then send the change again."
            ) from None

    def _read_mark(self) -> Mark | None:
        """Return the mark; None if it is missing and not required, or belongs to an index that was replaced.

        Raises:
            LostChangesError: the mark is damaged, or missing though required, or belongs to another index.
        """
        if self._mark is None:
            return None
        try:
            found = self._mark.read()
        except ArtifactError as error:
            raise self._lost(None, str(error)) from None
        if found is None and self._required:
            raise self._lost(None, f"{self._mark.path} is missing")
        if found is None or found.lineage == self.lineage:
            return found
        if found.sequence > self._start:
            raise self._lost(None, f"{self._mark.path} belongs to another index")
        return None

    def _compare(self, connection: Connection, head: Row[Any] | None, mark: Mark | None) -> None:
        """Check that the journal with this `head` reaches the change that `mark` names, and has this change."""
        if mark is None or mark.sequence <= self._start:
            return
        given = head.given if head is not None and head.lineage == self.lineage else self._start
        if given < mark.sequence:
            raise self._lost(given, f"it ends at change {given}", *mark.acknowledged)
        there = connection.execute(_DIGEST, {"sequence": mark.sequence}).scalar_one_or_none()
        if there is not None and mark.digest and there.hex() != mark.digest:
            raise self._lost(
                None, f"change {mark.sequence} is another than was acknowledged", *mark.acknowledged
            )

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

    def _lost(
        self, last: int | None, reason: str, acknowledged: int | None = None, time: str = ""
    ) -> ArtifactError:
        last = None if last is None else max(last, self._start)
        return lost_changes(self._store.name, last, reason, acknowledged, time)

    def _damaged(self, reason: object) -> ArtifactError:
        return ArtifactError(f"{self._store.name} is damaged ({reason}). {self._store.repair}.")


def _number(together: Sequence[_Waiting], given: int, existing: Existed) -> None:
    """Give the changes the sequence numbers after `given`, and record which items exist before each change."""
    item_ids = [change.item_id for waiting in together for change in waiting.changes]
    there = dict(zip(item_ids, existing(given, item_ids), strict=True))
    sequence = itertools.count(given + 1)
    for waiting in together:
        for change, row in zip(waiting.changes, waiting.rows, strict=True):
            row["sequence"] = number = next(sequence)
            waiting.recorded.append(JournalEntry(number, named(change, number), there[change.item_id]))
            there[change.item_id] = change.item is not None
