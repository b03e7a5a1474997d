"""Journal store in a local file: SQLite in WAL mode, with an fsync at every commit.

    index/changes.sqlite

The first change creates the file atomically, with its tables. An empty file is therefore reported as damaged.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import monotonic, sleep
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from model.artifact import sync_path
from model.errors import ArtifactError, StorageError

from .store import METADATA, STORE_TIMEOUT_S

JOURNAL_FILE = "changes.sqlite"
"""Name of the file in an index folder that contains the changes."""

_WRITING = "rcml_writing"

_NO_DAMAGE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY}
"""SQLite errors caused by the disk or by another process, not by damage to the file."""


class SqliteStore:
    """`Store` in a SQLite file in a folder."""

    remedy = "Free disk space or repair the disk"
    repair = "Restore a backup, or remove the file to continue without the changes made since the newest generation"

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL_FILE
        self.name = str(self._path)

    def engine(self, create: bool = False) -> Engine | None:
        """Return an engine for the file; see `Store.engine`."""
        if not self._path.exists():
            if not create:
                return None
            _create(self._path)
        return _connect(self._path)

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

    def set_aside(self) -> None:
        """Rename the damaged file and its logs; see `Store.set_aside`."""
        for path in (self._path, *(self._path.with_name(f"{JOURNAL_FILE}-{log}") for log in ("wal", "shm"))):
            with suppress(FileNotFoundError):
                path.replace(path.with_name(f"{path.name}.damaged"))


def _create(path: Path) -> None:
    """Create the file with its tables, atomically."""
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        METADATA.create_all(connection)
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        content = driver.serialize()
    engine.dispose()
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process created it first
            os.link(file.name, path)
    sync_path(path.parent)


def _connect(path: Path) -> Engine:
    # Quote the path in a SQLite URI, because it may contain `?` or `#`.
    url = URL.create("sqlite", database=f"file:{quote(str(path))}", query={"uri": "true"})
    engine = create_engine(url, connect_args={"timeout": STORE_TIMEOUT_S})

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: object) -> None:
        connection.isolation_level = None  # transactions are started in `begin` below, not by the driver
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writing = connection.get_execution_options().get(_WRITING, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


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
