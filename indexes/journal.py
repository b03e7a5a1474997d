"""The changes to an index since it was built: every upsert and deletion, durable before it is acknowledged.

SQLite in WAL mode, synced at every commit, beside the generations of the index. Each change has a sequence
number that is never given twice; an index is a generation and, on top of it, the changes that came after the
sequence it was made at.

Writers that come at the same time share a commit: one of them writes all that wait, in one transaction
with one sync (group commit; DeWitt et al. 1984). So a change takes as long as a sync, and 64 take little longer.
"""

import hashlib
import itertools
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Condition, Lock
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Float16
from numpy import ndarray
from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    bindparam,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError

from model.artifact import PICTURES, sync_path
from model.errors import ArtifactError, MismatchError, StorageError
from model.records import Item

FILE = "changes.sqlite"
"""Where the changes lie within an index."""

_METADATA = MetaData()

_CHANGES = Table(
    "changes",
    _METADATA,
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    Column("item_id", String, nullable=False),
    Column("item", String),
    Column("picture", LargeBinary),
    Column("vectors", LargeBinary),
    Column("digest", LargeBinary, nullable=False),
    sqlite_autoincrement=True,  # so that no sequence is given again after the newest changes were trimmed
)

_LINEAGE = Table(
    "lineage",
    _METADATA,
    Column("lineage", String, primary_key=True),
    Column("trimmed", Integer, nullable=False),  # changes up to this one were forgotten
)

_NEWEST = select(func.max(_CHANGES.c.sequence))
_SINCE = (
    select(*(column for column in _CHANGES.c if column.name != "picture"))
    .where(_CHANGES.c.sequence > bindparam("after"))
    .order_by(_CHANGES.c.sequence)
)
_PICTURE = select(_CHANGES.c.picture).where(_CHANGES.c.sequence == bindparam("sequence"))
_TRIM = delete(_CHANGES).where(_CHANGES.c.sequence <= bindparam("upto"))

PATIENCE = 30.0
"""Seconds to wait for another process that is writing."""

_WRITING = "rcml_writing"


@dataclass(frozen=True)
class Change:
    """An item put into the catalogue, new or instead of the one of its id; or one taken out (`item` is None).

    `vectors` are those of each view, in the order of `View`, under each relation. `picture`, the content of the
    file that `item.picture` names, is not read back with the rest: see `Journal.picture`.
    """

    item_id: str
    item: Item | None = None
    vectors: Float16[ndarray, "views relations dim"] | None = None
    picture: bytes = b""
    picture_sha256: str = ""

    @classmethod
    def put(cls, item: Item, vectors: Float16[ndarray, "views relations dim"], picture: bytes) -> "Change":
        """An item with its picture, whose file name gives its format."""
        return cls(item.item_id, item, vectors, picture, hashlib.sha256(picture).hexdigest())


@dataclass(frozen=True)
class Recorded:
    """A change that is durable, and its place among all changes. `item.picture` names its file from now on."""

    sequence: int
    change: Change


@dataclass
class _Waiting:
    """Changes of one writer, and what became of them."""

    rows: list[dict[str, Any]]
    changes: Sequence[Change]
    recorded: list[Recorded] = field(default_factory=list)
    failure: StorageError | None = None
    done: bool = False


class Journal:
    """The changes of an index; may be used from many threads and processes."""

    def __init__(self, folder: Path, lineage: str, start: int, shape: tuple[int, int, int]) -> None:
        """Open the journal in `folder`, which is made with the first change.

        `lineage` names what the changes are to; those up to sequence `start` are history, whatever they were to.
        `shape` is that of the vectors of a change.
        """
        self._path = folder / FILE
        self._lineage = lineage
        self._start = start
        self._shape = shape
        self._queue: list[_Waiting] = []
        self._changed = Condition()
        self._led = False
        self._committing = Lock()
        self._engine: Engine | None = None

    def close(self) -> None:
        """Give the file back."""
        with self._committing:
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    def append(
        self, changes: Sequence[Change], publish: Callable[[list[Recorded]], None] = lambda recorded: None
    ) -> list[Recorded]:
        """Make `changes` durable, all or none, and return them with their sequences.

        `publish` is called once for all writers that share the commit, after it and before any of them goes on.

        Raises:
            StorageError: the disk is full or failing; nothing was changed.
            MismatchError: the journal there is of another index.
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
                    self._commit(together, publish)
            finally:
                with self._changed:
                    self._led = False
                    self._changed.notify_all()
        if waiting.failure is not None:
            raise waiting.failure
        return waiting.recorded

    def newest(self) -> int:
        """Sequence of the newest change that is kept; 0 where there is none."""
        if (engine := self._opened()) is None:
            return 0
        with engine.connect() as connection:
            return connection.execute(_NEWEST).scalar_one() or 0

    def since(self, sequence: int) -> list[Recorded]:
        """The changes after `sequence` that are kept, oldest first.

        Raises:
            ArtifactError: one of them is damaged or missing.
        """
        if (engine := self._opened()) is None:
            return []
        with _reading(self._path), engine.connect() as connection:
            found = [self._recorded(row) for row in connection.execute(_SINCE, {"after": sequence})]
            trimmed = connection.execute(select(_LINEAGE.c.trimmed)).scalar_one()
            expected = range(max(sequence, trimmed) + 1, _last_given(connection) + 1)
        if [recorded.sequence for recorded in found] != [*expected]:
            raise _damaged(self._path, f"{len(found)} of {len(expected)} changes are there")
        return found

    def picture(self, recorded: Recorded) -> bytes | None:
        """The picture of the item that a change put in; None once the change is forgotten.

        Raises:
            ArtifactError: it is damaged.
        """
        engine = self._opened()
        assert engine is not None, "a change has a journal"
        with _reading(self._path), engine.connect() as connection:
            row = connection.execute(_PICTURE, {"sequence": recorded.sequence}).one_or_none()
        if row is None:
            return None
        picture = row.picture or b""
        if hashlib.sha256(picture).hexdigest() != recorded.change.picture_sha256:
            raise _damaged(self._path, f"the picture of change {recorded.sequence}")
        return picture

    def copy(self, folder: Path) -> None:
        """Put a copy of what is durable into `folder`, unless there has been no change; writers go on meanwhile.

        Raises:
            StorageError: the disk is full or failing.
        """
        if (engine := self._opened()) is None:
            return
        with closing(engine.raw_connection()) as connection:
            assert connection.driver_connection is not None
            try:
                connection.driver_connection.execute("VACUUM INTO ?", (str(folder / FILE),))
            except sqlite3.Error as error:
                raise StorageError(f"{self._path} could not be copied to {folder} ({error}).") from None

    def trim(self, sequence: int) -> None:
        """Forget the changes up to `sequence`, which a generation holds."""
        with self._committing:
            if (engine := self._opened()) is not None:
                with _reading(self._path), _transaction(engine) as connection:
                    connection.execute(_TRIM, {"upto": sequence})
                    connection.execute(
                        update(_LINEAGE).where(_LINEAGE.c.trimmed < sequence), {"trimmed": sequence}
                    )

    def _commit(self, together: list[_Waiting], publish: Callable[[list[Recorded]], None]) -> None:
        try:
            engine = self._opened(create=True)
            assert engine is not None
            with _transaction(engine) as connection:
                if connection.execute(select(_LINEAGE.c.lineage)).scalar_one_or_none() != self._lineage:
                    raise MismatchError("the index was built again meanwhile: open it anew")
                sequence = itertools.count(_last_given(connection) + 1)
                for waiting in together:
                    for change, row in zip(waiting.changes, waiting.rows, strict=True):
                        row["sequence"] = next(sequence)
                        waiting.recorded.append(Recorded(row["sequence"], _named(change, row["sequence"])))
                connection.execute(insert(_CHANGES), [row for waiting in together for row in waiting.rows])
        except (DBAPIError, OSError, ArtifactError) as error:
            for waiting in together:
                reason = error.orig if isinstance(error, DBAPIError) else error
                waiting.failure = StorageError(
                    f"The change could not be stored in {self._path} ({reason}). Nothing was changed; make room or "
                    "mend the disk, and send it again."
                )
        else:
            publish([recorded for waiting in together for recorded in waiting.recorded])
        finally:
            for waiting in together:
                waiting.done = True

    def _opened(self, create: bool = False) -> Engine | None:
        """The database, or None if there has been no change."""
        if self._engine is None and (create or self._path.exists()):
            if not self._path.exists():
                _create(self._path)
            engine = _connect(self._path)
            try:
                with nullcontext() if create else _reading(self._path):
                    self._check(engine)
            except BaseException:
                engine.dispose()
                raise
            self._engine = engine
        return self._engine

    def _check(self, engine: Engine) -> None:
        """See to it that the journal is one to this index, and that its sequences go on."""
        with _transaction(engine) as connection:
            found = connection.execute(select(_LINEAGE.c.lineage)).scalar_one_or_none()
            if found != self._lineage:
                if (connection.execute(_NEWEST).scalar_one() or 0) > self._start:
                    raise MismatchError(
                        f"{self._path} holds changes to another index than the one beside it. Put back the one that "
                        "belongs here, or remove the file to go on without these changes."
                    )
                connection.execute(delete(_CHANGES))
                connection.execute(delete(_LINEAGE))
                connection.execute(insert(_LINEAGE), {"lineage": self._lineage, "trimmed": self._start})
            if _last_given(connection) < self._start:
                connection.execute(delete(_CHANGES))
                connection.execute(update(_LINEAGE), {"trimmed": self._start})
                connection.exec_driver_sql("DELETE FROM sqlite_sequence WHERE name = 'changes'")
                connection.exec_driver_sql(
                    "INSERT INTO sqlite_sequence VALUES ('changes', ?)", (self._start,)
                )

    def _recorded(self, row: Row[Any]) -> Recorded:
        item = None
        vectors = None
        if _digest(row.item_id, row.item, row.vectors) != row.digest:
            raise _damaged(self._path, f"change {row.sequence}")
        picture_sha256 = ""
        if row.item is not None:
            content = json.loads(row.item)
            picture_sha256 = content.pop("picture_sha256")
            item = Item(**{**content, "categories": tuple(content["categories"])})
            vectors = np.frombuffer(row.vectors, dtype=np.float16).reshape(self._shape)
        change = Change(row.item_id, item, vectors, picture_sha256=picture_sha256)
        return Recorded(row.sequence, _named(change, row.sequence))


def last_sequence(folder: Path) -> int:
    """The last sequence given in the journal in `folder`, kept or not; 0 where there is none.

    Raises:
        ArtifactError: the journal is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return 0
    engine = _connect(path)
    try:
        with _reading(path), engine.connect() as connection:
            return _last_given(connection)
    finally:
        engine.dispose()


def set_aside(folder: Path) -> None:
    """Put a damaged journal in `folder` out of the way, and keep it."""
    for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
        with suppress(FileNotFoundError):
            (folder / name).replace(folder / f"{name}.damaged")


def _last_given(connection: Connection) -> int:
    found = connection.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = 'changes'")
    return int(found.scalar_one_or_none() or 0)


_NO_DAMAGE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY}
"""What SQLite says of a disk or a neighbour, and not of the file."""


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What a damaged file makes SQLite say, or hold that was never stored, is an `ArtifactError`.

    A full or failing disk, which SQLite may notice when it opens a file to read, is a `StorageError`.
    """
    try:
        yield
    except (DBAPIError, sqlite3.DatabaseError) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        if getattr(reason, "sqlite_errorcode", 0) & 0xFF in _NO_DAMAGE:
            raise StorageError(f"{path} cannot be used now ({reason}); make room or mend the disk.") from None
        raise _damaged(path, reason) from None
    except (AttributeError, TypeError, ValueError, OverflowError, MemoryError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, reason: object) -> ArtifactError:
    return ArtifactError(
        f"{path} is damaged ({reason}); restore a snapshot, or remove the file to go on without the changes since "
        "the index was built."
    )


def _row(change: Change) -> dict[str, Any]:
    item = vectors = None
    if change.item is not None:
        assert change.vectors is not None
        content = {**asdict(change.item), "picture_sha256": change.picture_sha256}
        item = json.dumps(content, ensure_ascii=False)
        vectors = change.vectors.tobytes()
    return {
        "item_id": change.item_id,
        "item": item,
        "picture": change.picture or None,
        "vectors": vectors,
        "digest": _digest(change.item_id, item, vectors),
    }


def _named(change: Change, sequence: int) -> Change:
    """With a file name for its picture that no other item has."""
    if change.item is None:
        return change
    name = f"{PICTURES}/change-{sequence:09d}{Path(change.item.picture).suffix}"
    # Its content may be long, and is in the journal.
    return replace(change, item=replace(change.item, picture=name), picture=b"")


def _digest(item_id: str, item: str | None, vectors: bytes | None) -> bytes:
    parts = [item_id.encode(), b"" if item is None else item.encode(), vectors or b""]
    return hashlib.sha256(b"".join(len(part).to_bytes(8) + part for part in parts)).digest()


@contextmanager
def _transaction(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(**{_WRITING: True}) as connection, connection.begin():
        yield connection


def _create(path: Path) -> None:
    """Make the file with its tables, whole at once: an empty one is a damaged one."""
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        _METADATA.create_all(connection)
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        content = driver.serialize()
    engine.dispose()
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was first
            os.link(file.name, path)
    sync_path(path.parent)


def _connect(path: Path) -> Engine:
    # SQLite's own URI form, in which a path may hold `?` and `#`.
    url = URL.create("sqlite", database=f"file:{quote(str(path))}", query={"uri": "true"})
    engine = create_engine(url, connect_args={"timeout": PATIENCE})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writing = connection.get_execution_options().get(_WRITING, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Set the mode, which SQLite, unlike all else, does not wait for while another opens or closes the file."""
    given_up = monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > given_up:
                raise
            sleep(0.001)
        else:
            return
