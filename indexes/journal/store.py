"""The store of a journal: its two tables, and what a database must do to hold them.

`changes` has a row for every change that is kept, `lineage` one row that says what they are to. Whatever the
database, a writer is alone from its first statement to its commit, a commit is on the disk, and a reader sees one
moment. `indexes/journal/sqlite_store.py` keeps the tables in a file, `indexes/journal/postgres_store.py` on a server.
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
"""Seconds to wait for another process that writes, or a server that does not answer."""

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
    Column("trimmed", _SEQUENCE, nullable=False),  # changes up to this one were forgotten
    Column("given", _SEQUENCE, nullable=False),  # the last sequence given, so that none is given again
)

HEAD = select(LINEAGE)

LOCKED_HEAD = HEAD.with_for_update()
"""The first statement of a writer: on a server, others wait for the row."""


class Store(Protocol):
    """The database of one journal."""

    name: str
    """Name in messages."""

    remedy: str
    """Advice if it does not work, after `Nothing was changed;`."""

    repair: str
    """Advice if it is damaged."""

    def engine(self, create: bool = False) -> Engine | None:
        """Open a pool of connections; None if there has been no change yet, unless `create`.

        Raises:
            StorageError: it cannot be made.
        """

    def reading(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Open a connection that sees the tables as of one moment."""

    def writing(self, engine: Engine) -> AbstractContextManager[Connection]:
        """Open the only transaction that writes; it is durable once the block has ended.

        Raises:
            StorageError: whether it came to be is not known.
        """

    def faults(self) -> AbstractContextManager[None]:
        """Turn errors of the database into an `ArtifactError` if it is damaged, else into a `StorageError`."""

    def copy(self, engine: Engine, folder: Path) -> None:
        """Copy what is durable into `folder`, as a journal in a file; writers go on meanwhile.

        Raises:
            StorageError: the disk is full or failing.
        """

    def set_aside(self) -> None:
        """Rename damaged tables, so that they are kept, and begin with empty ones."""


def last_sequence(store: Store) -> int:
    """Read the last sequence given in a journal, kept or not; 0 if there is none.

    Raises:
        ArtifactError: the journal is damaged.
        StorageError: it is out of reach.
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
