"""A journal in a file of this machine: SQLite in WAL mode, synced at every commit.

    index/changes.sqlite

Made with the first change, and whole at once: an empty file is a damaged one.
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
"""File of the changes within an index."""

_WRITING = "rcml_writing"

_NO_DAMAGE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY}
"""What SQLite says of a disk or a neighbour, and not of the file."""


class SqliteStore:
    """A `Store` in a file of a folder."""

    remedy = "make room or mend the disk"
    repair = "restore a snapshot, or remove the file to go on without the changes since the index was built"

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL_FILE
        self.name = str(self._path)

    def engine(self, create: bool = False) -> Engine | None:
        """Open a pool of connections; see `Store.engine`."""
        if not self._path.exists():
            if not create:
                return None
            _create(self._path)
        return _connect(self._path)

    @contextmanager
    def reading(self, engine: Engine) -> Iterator[Connection]:
        """Open a connection to read; see `Store.reading`."""
        with engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self, engine: Engine) -> Iterator[Connection]:
        """Open the transaction of a writer; see `Store.writing`."""
        with engine.connect().execution_options(**{_WRITING: True}) as connection, connection.begin():
            yield connection

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Turn errors into ours; see `Store.faults`; a full disk may be noticed when a file is opened to read."""
        try:
            yield
        except (DBAPIError, sqlite3.DatabaseError) as error:
            reason = error.orig if isinstance(error, DBAPIError) else error
            if getattr(reason, "sqlite_errorcode", 0) & 0xFF in _NO_DAMAGE:
                raise StorageError(f"{self.name} cannot be used now ({reason}); {self.remedy}.") from None
            raise ArtifactError(f"{self.name} is damaged ({reason}); {self.repair}.") from None

    def copy(self, engine: Engine, folder: Path) -> None:
        """Copy the changes; see `Store.copy`."""
        with closing(engine.raw_connection()) as connection:
            assert connection.driver_connection is not None
            try:
                connection.driver_connection.execute("VACUUM INTO ?", (str(folder / JOURNAL_FILE),))
            except sqlite3.Error as error:
                raise StorageError(f"{self.name} could not be copied to {folder} ({error}).") from None

    def set_aside(self) -> None:
        """Rename damaged tables; see `Store.set_aside`."""
        for path in (self._path, *(self._path.with_name(f"{JOURNAL_FILE}-{log}") for log in ("wal", "shm"))):
            with suppress(FileNotFoundError):
                path.replace(path.with_name(f"{path.name}.damaged"))


def _create(path: Path) -> None:
    """Make the file with its tables."""
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
        with suppress(FileExistsError):  # another process was first
            os.link(file.name, path)
    sync_path(path.parent)


def _connect(path: Path) -> Engine:
    # SQLite's own URI form, in which a path may hold `?` and `#`.
    url = URL.create("sqlite", database=f"file:{quote(str(path))}", query={"uri": "true"})
    engine = create_engine(url, connect_args={"timeout": STORE_TIMEOUT_S})

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
