"""Store of a journal: its two tables, and the guarantees that a database must give.

`changes` has a row for every stored change. `lineage` has a single row, which identifies the index that the changes
belong to. Every store guarantees that write transactions run one at a time, that a commit is durable, and that a reader
sees the tables as of one point in time. `indexes/journal/sqlite_store.py` stores the tables in a file,
`indexes/journal/postgres_store.py` on a server.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    select,
)

STORE_TIMEOUT_S = 30.0
"""Seconds to wait for another process that is writing, or for a server that does not answer."""

METADATA = MetaData()

_SEQUENCE = BigInteger().with_variant(Integer(), "sqlite")

CHANGES = Table(
    "changes",
    METADATA,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=False),
    Column("item_id", String, nullable=False),
    Column("item", String),
    Column("picture", LargeBinary),
    Column("vectors", LargeBinary),
    Column("tokens", LargeBinary),
    Column("digest", LargeBinary, nullable=False),
)

LINEAGE = Table(
    "lineage",
    METADATA,
    Column("lineage", String, primary_key=True),
    Column("trimmed", _SEQUENCE, nullable=False),  # changes up to this sequence number were deleted
    Column("given", _SEQUENCE, nullable=False),  # last assigned sequence number; no number is reused
)

HEAD = select(LINEAGE)

LOCKED_HEAD = HEAD.with_for_update()
"""First statement of a writer. On a server, it locks the row, and other writers wait for it."""


class Store(Protocol):
    """Database of one journal."""

    name: str
    """Name of the store in messages."""

    remedy: str
    """Advice in messages if the store is unavailable, without the final period."""

    repair: str
    """Advice in messages if the store is damaged, without the final period."""

    @property
    def read_only(self) -> bool:
        """Whether this user may read the database but not write to it. This can change while it is open."""

    def engine(self, create: bool = False) -> Engine | None:
        """Return an engine with a connection pool; None if there has been no change yet.

        With `create`, a missing database is created, and the engine can write.

        Raises:
            ReadOnlyError: `create` is set, but this user may not write.
            StorageError: the database cannot be created.
        """

    def reading(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Open a connection that sees the tables as of one point in time."""

    def writing(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Open a write transaction, which excludes other writers and is durable when the block has ended.

        Raises:
            StorageError: it is unknown whether the transaction was committed.
        """

    def faults(self) -> AbstractContextManager[None]:
        """Convert database errors to an `ArtifactError` if the database is damaged, otherwise to a `StorageError`."""

    def copy(self, engine: Engine, folder: Path) -> None:
        """Copy the durable changes into `folder`, as a SQLite journal, without blocking writers.

        Raises:
            StorageError: the disk is full or failing.
        """

    def prepare(self) -> None:
        """Create the database and its tables if they are missing.

        Raises:
            StorageError: the disk is full or failing, or the server is unreachable or denies permission.
        """

    def set_aside(self) -> None:
        """Rename damaged tables in order to preserve them, and start with empty tables."""


def last_sequence(store: Store) -> int:
    """Return the last assigned sequence number of a journal, even if its change was deleted; 0 if there is none.

    Raises:
        ArtifactError: the journal is damaged.
        StorageError: the journal is unreachable.
    """
    with store.faults():
        if (engine := store.engine()) is None:
            return 0
        try:
            with store.reading(engine) as connection:
                head = connection.execute(HEAD).one_or_none()
        finally:
            engine.dispose()
        return 0 if head is None else int(head.given)
