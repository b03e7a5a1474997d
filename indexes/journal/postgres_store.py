"""Journal store on a Postgres server, for an index that several machines serve.

    postgresql://user@host/database?options=-csearch_path%3Drcml_shop_1f0c9a7e

Each index has its own schema, which the libpq parameter `options` in the URL selects. Many indexes can therefore share
a database, the URL is all that is needed to find the changes, and `psql` accepts the URL unchanged. The index stores
the URL, so the URL must not contain a password. libpq reads the password from PGPASSWORD, from ~/.pgpass, or from the
file that `passfile=` names.

Writers queue for the single row of `lineage`, so sequence numbers have no gaps and follow the order of commits. If the
connection is lost during a commit, the store reconnects and asks the server whether the transaction was committed.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, insert, make_url, select, text
from sqlalchemy.exc import DBAPIError

from model.errors import ArtifactError, InputError, StorageError

from .sqlite_store import SqliteStore
from .store import CHANGES, HEAD, LINEAGE, METADATA, STORE_TIMEOUT_S

COPIED_ROWS_PER_CHUNK = 100
"""Number of changes copied at a time."""

_SEARCH_PATH = re.compile(r"search_path=\"?(\w+)")

_SETTINGS = {
    "synchronous_commit": "on",  # even if the role or the database has another setting
    "lock_timeout": f"{STORE_TIMEOUT_S:.0f}s",
    # A process that hangs must not block the others. The timeout is shorter than the wait in `_committed`: if the
    # connection is lost, the server ends the transaction before `_committed` gives up.
    "idle_in_transaction_session_timeout": f"{STORE_TIMEOUT_S / 3:.0f}s",
}

_TIMEOUTS = {
    "connect_timeout": 5,
    "tcp_user_timeout": int(STORE_TIMEOUT_S * 1_000),
    "application_name": "rcml",
}
"""Default libpq parameters, which the URL can override."""

_DAMAGED = {"42P01", "42703", "3F000", "XX001", "XX002"}
"""SQLSTATE codes of a missing table, column or schema, and of corrupted data.

An error with any other code is reported as an unavailable server.
"""

_NOTHING_YET = {"lineage": "", "trimmed": 0, "given": 0}


def located(url: str, index: Path) -> str:
    """Return `url` with a new schema for `index`, or unchanged if it already names a schema."""
    address = make_url(url)
    options = str(address.query.get("options", ""))
    if _SEARCH_PATH.search(options):
        return url
    slug = re.sub(r"[^a-z0-9]+", "_", index.absolute().name.lower()).strip("_")[:32]
    schema = f"rcml_{slug}_{secrets.token_hex(4)}"
    return _text(address.update_query_dict({"options": f"{options} -csearch_path={schema}".lstrip()}))


def same_server(url: str, other: str) -> bool:
    """Return whether two URLs are equal; the schemas are compared only if both URLs name one."""
    ours, theirs = (make_url(one) for one in (url, other))
    if all("options" in one.query for one in (ours, theirs)):
        return ours == theirs
    return ours.difference_update_query(["options"]) == theirs.difference_update_query(["options"])


class PostgresStore:
    """`Store` in a schema on a Postgres server."""

    remedy = "Check the server"

    def __init__(self, url: str) -> None:
        address = make_url(url)
        found = _SEARCH_PATH.search(str(address.query.get("options", "")))
        assert found is not None, "the URL stored in an index contains a schema"
        self._address, self._schema = address.set(drivername="postgresql+psycopg"), found[1]
        self.name = f"{_text(address.difference_update_query(['options']))} (schema {self._schema})"
        self.repair = (
            f"Restore a backup, or drop the schema {self._schema} and rebuild the index, which loses all "
            "changes. If restoring fails, drop the schema and restore again"
        )

    def prepare(self) -> None:
        """Create the schema and the tables that do not exist yet.

        Raises:
            StorageError: the server is unreachable, or denies permission.
        """
        engine = self.engine()
        try:
            with self.faults(), engine.begin() as connection:
                there = text("SELECT to_regnamespace(:schema)")
                if connection.execute(there, {"schema": self._schema}).scalar_one() is None:
                    connection.execute(text(f'CREATE SCHEMA "{self._schema}"'))
                METADATA.create_all(connection)
                if connection.execute(HEAD).one_or_none() is None:
                    connection.execute(insert(LINEAGE), _NOTHING_YET)
        finally:
            engine.dispose()

    @property
    def read_only(self) -> bool:
        """Whether this user may not write; see `Store.read_only`. The server rejects users without the right."""
        return False

    def engine(self, create: bool = False) -> Engine:
        """Return an engine with a connection pool; see `Store.engine`.

        The result is never None, because the build creates the tables.

        Raises:
            InputError: psycopg is not installed.
        """
        given = self._address.query
        settings = " ".join(f"-c{name}={value}" for name, value in _SETTINGS.items())
        arguments: dict[str, Any] = {name: value for name, value in _TIMEOUTS.items() if name not in given}
        arguments["options"] = f"{given['options']} {settings}"
        try:
            return create_engine(self._address, pool_pre_ping=True, connect_args=arguments)
        except ModuleNotFoundError:
            raise InputError(
                "Storing changes in Postgres requires psycopg, which is not installed. "
                "Run `pip install 'rcml[postgres]'`."
            ) from None

    @contextmanager
    def reading(self, engine: Engine) -> Iterator[Connection]:
        """Open a connection for reading; see `Store.reading`."""
        with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            yield connection

    @contextmanager
    def writing(self, engine: Engine) -> Iterator[Connection]:
        """Open a write transaction; see `Store.writing`."""
        with engine.connect() as connection:
            transaction = connection.begin()
            try:
                number = connection.execute(text("SELECT CAST(pg_current_xact_id() AS text)")).scalar_one()
                yield connection
            except BaseException:
                transaction.rollback()
                raise
            try:
                transaction.commit()
            except DBAPIError:
                if not self._committed(engine, number):
                    raise

    def _committed(self, engine: Engine, number: str) -> bool:
        """Return whether a transaction with an unacknowledged commit was committed."""
        given_up = monotonic() + STORE_TIMEOUT_S
        while monotonic() < given_up:
            try:
                with engine.connect() as connection:
                    question = text("SELECT pg_xact_status(CAST(:number AS xid8))")
                    status = connection.execute(question, {"number": number}).scalar_one()
            except DBAPIError:
                status = "unknown: the server is still unavailable"
            if status in ("committed", "aborted"):
                return bool(status == "committed")
            sleep(0.1)
        raise StorageError(
            f"{self.name} failed during a commit and has not recovered. It is unknown whether the change was stored. "
            "Check the server and look for the change. If the change is missing, send it again."
        )

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Convert database errors; see `Store.faults`."""
        try:
            yield
        except DBAPIError as error:
            reason = " ".join(str(error.orig).split())
            if getattr(error.orig, "sqlstate", None) in _DAMAGED:
                raise ArtifactError(f"{self.name} is damaged ({reason}). {self.repair}.") from None
            raise StorageError(f"{self.name} is unavailable ({reason}). {self.remedy}.") from None

    def copy(self, engine: Engine, folder: Path) -> None:
        """Copy the changes; see `Store.copy`."""
        file = SqliteStore(folder)
        target = file.engine(create=True)
        assert target is not None
        try:
            with self.faults(), self.reading(engine) as source:
                heads = source.execute(HEAD).mappings().all()
                changes = source.execute(select(CHANGES).order_by(CHANGES.c.sequence)).yield_per(
                    COPIED_ROWS_PER_CHUNK
                )
                with file.faults(), file.writing(target) as copied:
                    copied.execute(insert(LINEAGE), [dict(head) for head in heads])
                    for rows in changes.mappings().partitions():
                        copied.execute(insert(CHANGES), [dict(row) for row in rows])
        finally:
            target.dispose()

    def set_aside(self) -> None:
        """Rename the schema with the damaged tables; see `Store.set_aside`."""
        engine = self.engine()
        aside = f"{self._schema[:48]}_damaged_{secrets.token_hex(4)}"
        try:
            with self.faults(), engine.begin() as connection:
                connection.execute(text(f'ALTER SCHEMA "{self._schema}" RENAME TO "{aside}"'))
        finally:
            engine.dispose()
        self.prepare()


def _text(address: URL) -> str:
    return address.render_as_string(hide_password=False)
