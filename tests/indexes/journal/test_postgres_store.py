"""A journal on a Postgres server survives server failures and validates its URL."""

import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from signal import SIGQUIT
from threading import Thread

import pytest
from pydantic import ValidationError
from sqlalchemy import text

from indexes.config import BuildConfig
from indexes.journal.journal import Journal
from indexes.journal.postgres_store import PostgresStore, located, same_server
from indexes.journal.store import last_sequence
from model.errors import ArtifactError, InputError, StorageError
from tests.indexes.postgres_server import Server

from .test_journal import opened, put

LOCAL = "postgresql://me@localhost/shop"


@pytest.fixture
def store(postgres: Server) -> PostgresStore:
    store = PostgresStore(postgres.url())
    store.prepare()
    return store


@pytest.fixture
def journal(store: PostgresStore) -> Iterator[Journal]:
    journal = opened(store)
    yield journal
    journal.close()


def test_preparing_twice_keeps_changes(store: PostgresStore, journal: Journal) -> None:
    journal.append([put("a")])
    store.prepare()
    assert last_sequence(store) == 1


def test_journals_of_two_indexes_share_a_database(postgres: Server, journal: Journal) -> None:
    other = PostgresStore(postgres.url())
    other.prepare()
    beside = opened(other, lineage="b" * 64)
    journal.append([put("a"), put("b")])
    beside.append([put("c")])
    assert [one.change.item_id for one in journal.since(0)] == ["a", "b"]
    assert [one.change.item_id for one in beside.since(0)] == ["c"]
    beside.close()


def test_commits_synchronously_despite_role_setting(store: PostgresStore, journal: Journal) -> None:
    journal.append([put("a")])
    engine = journal.engine()
    assert engine is not None
    with engine.begin() as connection:
        connection.execute(text("ALTER ROLE CURRENT_USER SET synchronous_commit = off"))
    again = store.engine()
    with again.begin() as connection:
        shown = connection.execute(text("SHOW synchronous_commit")).scalar_one()
        connection.execute(text("ALTER ROLE CURRENT_USER RESET synchronous_commit"))
    again.dispose()
    assert shown == "on"


def test_journal_without_tables_is_damaged_not_empty(store: PostgresStore, journal: Journal) -> None:
    journal.append([put("a")])
    engine = store.engine()
    with engine.begin() as connection:
        schema = connection.execute(text("SELECT current_schema()")).scalar_one()
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()
    for question in (lambda: journal.since(0), lambda: last_sequence(store)):
        with pytest.raises(
            ArtifactError, match=rf"\(schema {schema}\) is damaged .*Restore a backup, or drop the"
        ):
            question()


@pytest.mark.parametrize("how", ["SIGINT", "SIGQUIT"])
def test_keeps_changes_across_server_restart(how: str, journal: Journal, postgres: Server) -> None:
    journal.append([put("a")])
    postgres.stop(*([SIGQUIT] if how == "SIGQUIT" else []))
    with pytest.raises(
        StorageError, match=r"Nothing was changed\. Check the server, then send the change again"
    ):
        journal.append([put("b")])
    with pytest.raises(StorageError, match=r"is unavailable .*refused.*\. Check the server"):
        journal.since(0)
    postgres.start()
    assert [one.change.item_id for one in journal.since(0)] == ["a"]
    assert journal.append([put("c")])[0].sequence == 2


def test_reports_unreachable_server() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    journal = opened(PostgresStore(f"postgresql://me@127.0.0.1:{port}/shop?options=-csearch_path%3Dtest"))
    with pytest.raises(StorageError, match=rf"postgresql://me@127.0.0.1:{port}/shop \(schema test\)"):
        journal.append([put("a")])


class Severed:
    """Proxy between a journal and its server that cuts the connection at the next COMMIT.

    `passed_on` specifies whether the server receives that COMMIT.
    """

    def __init__(self, port: int, passed_on: bool) -> None:
        self._port = port
        self._passed_on = passed_on
        self.armed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop accepting connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            for source, target in ((client, server), (server, client)):
                Thread(target=self._pump, args=(source, target, source is client), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, asks: bool) -> None:
        with closing(source), closing(target):
            try:
                while content := source.recv(65_536):
                    if asks and self.armed and b"COMMIT" in content:
                        self.armed = False
                        source.shutdown(socket.SHUT_RDWR)
                        if self._passed_on:
                            target.sendall(content)
                            target.recv(65_536)  # wait for the server to complete the commit
                        target.shutdown(socket.SHUT_RDWR)
                        return
                    target.sendall(content)
            except OSError:
                return


@pytest.mark.parametrize("passed_on", [True, False])
def test_determines_outcome_of_unacknowledged_commit(postgres: Server, passed_on: bool) -> None:
    severed = Severed(postgres.port, passed_on)
    store = PostgresStore(postgres.url().replace(f":{postgres.port}/", f":{severed.port}/"))
    store.prepare()
    journal = opened(store)
    journal.append([put("a")])
    severed.armed = True
    if passed_on:
        assert journal.append([put("b")])[0].sequence == 2
    else:
        with pytest.raises(StorageError, match="Nothing was changed"):
            journal.append([put("b")])
    assert not severed.armed
    found = [one.change.item_id for one in journal.since(0)]
    assert found == (["a", "b"] if passed_on else ["a"])
    assert journal.append([put("c")])[0].sequence == len(found) + 1
    journal.close()
    severed.close()


def test_reports_commit_with_unknown_outcome(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    severed = Severed(postgres.port, passed_on=True)
    store = PostgresStore(postgres.url().replace(f":{postgres.port}/", f":{severed.port}/"))
    store.prepare()
    journal = opened(store)
    journal.append([put("a")])
    monkeypatch.setattr("indexes.journal.postgres_store.STORE_TIMEOUT_S", 0.0)
    severed.armed = True
    with pytest.raises(StorageError, match="It is unknown whether the change was stored"):
        journal.append([put("b")])
    journal.close()
    severed.close()


def test_adds_schema_to_url_without_schema(tmp_path: Path) -> None:
    given = located(LOCAL, tmp_path / "My Shop's index!")
    assert given.startswith(f"{LOCAL}?options=-csearch_path%3Drcml_my_shop_s_index_")
    assert located(given, tmp_path) == given
    assert given != located(LOCAL, tmp_path / "My Shop's index!")
    assert same_server(LOCAL, given)
    assert not same_server(LOCAL.replace("shop", "other"), given)
    assert not same_server(located(LOCAL, tmp_path), given)


@pytest.mark.parametrize(
    ("url", "refusal"),
    [
        ("postgresql://me:secret@localhost/shop", "must not contain a password.*PGPASSWORD or ~/.pgpass"),
        (f"{LOCAL}?password=secret", "must not contain a password"),
        ("mysql://me@localhost/shop", "must be the address of a Postgres database"),
    ],
)
def test_rejects_url_with_password_or_other_scheme(url: str, refusal: str) -> None:
    with pytest.raises(ValidationError, match=refusal):
        BuildConfig.model_validate({"checkpoint": "c", "prepared": "p", "out": "o", "journal": url})


def test_missing_driver_error_names_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    store = PostgresStore(f"{LOCAL}?options=-csearch_path%3Dtest")
    with pytest.raises(InputError, match=r"pip install 'rcml\[postgres\]'"):
        store.prepare()
