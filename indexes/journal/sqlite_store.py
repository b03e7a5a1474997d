"""Journal store in a local file: SQLite in WAL mode, with an fsync at every commit.

    index/changes.sqlite

The build of an index creates the file atomically, with its tables. An empty file is therefore reported as damaged.

SQLite writes to the folder even to read a file in WAL mode. If this user may not write, on a read-only volume for
example, the file is opened so that SQLite only reads it, together with the changes still in its log (`-wal`).
"""

import errno
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, NullPool, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError

from model.durable_files import may_write, set_aside, storing, sync_path
from model.errors import ArtifactError, ReadOnlyError, StorageError
from model.plain_file import special_kind

from .store import METADATA, STORE_TIMEOUT_S

JOURNAL_FILE = "changes.sqlite"
"""Name of the file in an index folder that contains the changes."""

_WRITING = "rcml_writing"

_NO_DAMAGE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY}
"""SQLite errors caused by the disk or by another process, not by damage to the file."""

_NOTHING_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
"""Error codes of a path at which there is no file, and of links that lead in a circle."""


class SqliteStore:
    """`Store` in a SQLite file in a folder."""

    remedy = "Free disk space or repair the disk"
    repair = (
        "Restore a backup, or run `rcml index accept-loss` to continue without the changes that are damaged"
    )

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL_FILE
        self.name = str(self._path)
        logs = [self._path.with_name(f"{JOURNAL_FILE}-{log}") for log in ("wal", "shm", "journal")]
        self._files = (self._path, *logs)
        self._opened: tuple[int, int] | None = None
        self._log = logs[0]

    @property
    def read_only(self) -> bool:
        """Whether this user may not write; see `Store.read_only`."""
        return not all(may_write(path) for path in (self._path.parent, self._path) if path.exists())

    def engine(self, create: bool = False) -> Engine | None:
        """Return an engine for the file; see `Store.engine`."""
        if create and self.read_only:
            raise ReadOnlyError(self._path.parent, "there is no right to write")
        self._refuse_special_files()
        if not self._path.exists() and not create:
            return None
        if create:
            self.prepare()
        self._opened = _identity(self._path)
        self._log = Path(f"{self._path.resolve()}-wal")  # beside the file to which a link leads
        return _read_only_engine(self._path) if self.read_only else _engine(self._path)

    @contextmanager
    def reading(self, engine: Engine) -> Iterator[Connection]:
        """Open a connection for reading; see `Store.reading`."""
        with engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self, engine: Engine) -> Iterator[Connection]:
        """Open a write transaction; see `Store.writing`."""
        with engine.connect().execution_options(**{_WRITING: True}) as connection, connection.begin():
            yield connection
            self._check_place()

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Convert database errors; see `Store.faults`. Even opening the file for reading may fail on a full disk."""
        try:
            yield
        except (DBAPIError, sqlite3.DatabaseError) as error:
            reason = error.orig if isinstance(error, DBAPIError) else error
            if getattr(reason, "sqlite_errorcode", 0) & 0xFF in _NO_DAMAGE:
                raise StorageError(f"{self.name} is unavailable ({reason}). {self.remedy}.") from None
            raise ArtifactError(f"{self.name} is damaged ({reason}). {self.repair}.") from None

    def copy(self, engine: Engine, folder: Path) -> None:
        """Copy the changes; see `Store.copy`."""
        with closing(engine.raw_connection()) as connection:
            assert connection.driver_connection is not None
            try:
                connection.driver_connection.execute("VACUUM INTO ?", (str(folder / JOURNAL_FILE),))
            except sqlite3.Error as error:
                raise StorageError(
                    f"{self.name} could not be copied to {folder} ({error}). Check the disk."
                ) from None

    def prepare(self) -> None:
        """Create the file if it is missing; see `Store.prepare`."""
        if not self._path.exists():
            with storing(self._path.parent):
                _create(self._path)

    def set_aside(self) -> None:
        """Rename the damaged file and its logs, and create an empty one; see `Store.set_aside`."""
        for path in self._files:
            set_aside(path)
        self.prepare()

    def _check_place(self) -> None:
        """Check that a commit reaches the files that the next process will open.

        A file that is deleted or replaced while it is open takes further writes, which are gone when it is closed.

        Raises:
            StorageError: the file is no longer the one that was opened, or its log is missing.
        """
        if _identity(self._path) != self._opened or not self._log.exists():
            raise StorageError(
                f"{self.name} or its log (-wal) was deleted or replaced while it was in use, so the change was not "
                "stored. Put the files back, or restart the server, which then names the changes that are missing."
            )

    def _refuse_special_files(self) -> None:
        """Check that SQLite opens only plain files; it would wait for the writer of a FIFO.

        Raises:
            ArtifactError: something else lies at the path of the database or of one of its logs.
        """
        for path in self._files:
            try:  # another process may remove a log at any time
                kind = special_kind(path.stat().st_mode)
            except OSError as error:
                if error.errno not in _NOTHING_THERE:
                    raise
                kind = "a link that leads nowhere" if path.is_symlink() else None
            if kind is not None:
                raise ArtifactError(f"{path} is {kind}, not a plain file. {self.repair}.")


def _identity(path: Path) -> tuple[int, int] | None:
    """Return the device and inode of a file, or None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _create(path: Path) -> None:
    """Create the file with its tables, atomically."""
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        METADATA.create_all(connection)
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        content = driver.serialize()
    engine.dispose()
    # Not a file of `tempfile`, which only its owner may read.
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with aside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process created it first
            os.link(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync_path(path.parent)


def _open(path: Path, options: str) -> sqlite3.Connection:
    """Open the file. Its path is quoted in the URI, because it may contain `?` or `#` and need not be valid UTF-8."""
    uri = f"file:{quote(os.fsencode(path.absolute()))}?{options}"
    return sqlite3.connect(
        uri, uri=True, timeout=STORE_TIMEOUT_S, check_same_thread=False, isolation_level=None
    )


def _read_only_engine(path: Path) -> Engine:
    """Return an engine that only reads the file, with a new connection for each use.

    Another user may begin or stop writing at any time, so each connection looks anew whether there is a log. Without a
    log, the file cannot change while it is read (`immutable`). With a log, SQLite reads both, but only if the shared
    index of the log (`-shm`) is there too, or can be made.
    """

    def connect() -> sqlite3.Connection:
        log = path.with_name(f"{path.name}-wal")
        written = log.exists() and log.stat().st_size > 0
        connection = _open(path, "mode=ro" if written else "mode=ro&immutable=1")
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            connection.close()
            if not written or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CANTOPEN:
                raise
            raise ArtifactError(
                f"{log} has changes that are not yet in {path.name}, and they cannot be read without the right to "
                "write. Run `rcml index stats` once as a user who may write to the folder, or copy the index to a "
                "folder that this user may write."
            ) from None
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
    _start_transactions(engine)
    return engine


def _engine(path: Path) -> Engine:
    engine = create_engine("sqlite://", creator=lambda: _open(path, "mode=rw"), poolclass=QueuePool)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")

    _start_transactions(engine)
    return engine


def _start_transactions(engine: Engine) -> None:
    """Start transactions here instead of in the driver, which starts none to read."""

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writing = connection.get_execution_options().get(_WRITING, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Set WAL mode, and retry while another process opens or closes the file.

    SQLite does not apply its busy timeout to this statement.
    """
    given_up = monotonic() + STORE_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > given_up:
                raise
            sleep(0.001)
        else:
            return
