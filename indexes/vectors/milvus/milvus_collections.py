"""Collections on a Milvus server: how they are named, created, loaded, counted, and dropped when unused.

A generation has one collection for each view, because Milvus before 2.4 allows only one vector field in a collection.
For the collections of each generation, a note file next to the generations contains their common name. The note is
written before the collections are created and removed after they are dropped. `drop_unused` can therefore find unused
collections even if the process that created them was killed.
"""

import logging
import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from pydantic import BaseModel, ConfigDict

from model.console import say
from model.durable_files import sync_path
from model.errors import ArtifactError, InputError, RcmlError, UnreachableError
from model.plain_file import read_json, read_model, read_plain
from model.similarity import View

from ..contract import FileReport

KEY_FIELD = "place"
"""Primary key field, whose value is the position of the relation times `ROWS_PER_RELATION`, plus the row."""

VECTOR_FIELD = "vector"
"""Field with the vectors."""

ROWS_PER_RELATION = 2**32
"""Number of keys reserved for each relation."""

MILVUS_FILE = "milvus.json"
"""File of a generation that refers to the collection with its vectors."""


REQUEST_TIMEOUT_S = 10.0
"""Timeout in seconds of one request, such as a search. Flushing, indexing, loading and dropping have no timeout."""

PROBE_TIMEOUT_S = 2.0
"""Timeout in seconds of the question whether the server answers."""

MAX_REQUEST_ATTEMPTS = 3
"""Number of times that pymilvus sends a request to a server that refuses connections; its default of 75 takes minutes.

The attempts of a search take 0.04 s, so that a request is answered at once while the server is down.
"""

MAX_PREPARATION_ATTEMPTS = 8
"""The same for flushing, indexing, loading and dropping, whose attempts take 10 s."""


_CHANNEL = {
    "grpc.keepalive_permit_without_calls": 0,
    "grpc.keepalive_time_ms": 60_000,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1_000,
}
"""gRPC options that disable pings on idle connections, and that let a connection recover in a second.

By default, pymilvus pings every 10 s, and some gRPC servers close the connection in response. After an outage, gRPC
waits up to two minutes by default.
"""


_NOTE = "collection"


class Place(BaseModel):
    """Content of `milvus.json`.

    `collection` is the common part of the names of the collections. `cells` is the number of cells of an IVF_FLAT
    index, or None if the index is FLAT. `reports` describes the vectors of each relation and view, by `file_name`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    collection: str
    count: int
    dim: int
    relations: int
    cells: int | None
    reports: dict[str, FileReport]

    @classmethod
    def read(cls, path: Path) -> "Place":
        """Read the file at `path`.

        Raises:
            ArtifactError: an earlier version of rcml wrote it, for one collection with a vector field for each view.
        """
        if isinstance(old := read_json(path), dict) and "reports" not in old:
            raise ArtifactError(
                f"{path} names the collection {old.get('collection')}, in which an earlier version of rcml stored all "
                "views. This version stores one collection per view. Rebuild the index: `rcml index build --checkpoint "
                f"CHECKPOINT --prepared PREPARED --out {path.parents[2]} --vectors {old.get('uri')}`."
            )
        return read_model(cls, path)

    def view(self, view: View) -> str:
        """Return the name of the collection with the vectors of a view."""
        return f"{self.collection}_{view}"


class Note(BaseModel):
    """Content of a note file, which records collections that exist or are about to be created.

    `collection` is the common part of their names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    collection: str


def drop_unused(index: Path) -> None:
    """Drop the collections of generations that were removed or never published; the index must be locked.

    A collection that cannot be dropped is reported and retried the next time.
    """
    for path in sorted(index.glob(f".generation-*.{_NOTE}")):
        if (index / path.name.split(".")[1]).exists():
            continue
        try:
            note = Note.model_validate_json(read_plain(path))
        except ValueError:  # left by a power failure before the collection was created
            path.unlink()
            continue
        try:
            with closing(connect(note.uri)) as client, server_errors(note.uri):
                _drop(client, note.collection)
        except RcmlError as error:
            say(f"Collection {note.collection} is no longer needed but could not be dropped. {error}")
        else:
            path.unlink()


def _drop(client: Any, collection: str) -> None:
    """Drop the collections of a generation, one per view, or the one that an earlier version of rcml created."""
    names = {collection, *(f"{collection}_{view}" for view in View)}
    for name in names.intersection(client.list_collections(**limits())):
        client.drop_collection(name, retry_times=MAX_PREPARATION_ATTEMPTS)


def check_server(uri: str) -> None:
    """Check that a server answers, before a long operation starts.

    Raises:
        UnreachableError: the server does not answer.
        InputError: pymilvus is not installed.
    """
    with closing(connect(uri)) as client, server_errors(uri):
        client.get_server_version(**limits())


def limits() -> dict[str, Any]:
    """Return the options of a request that must be answered or fail soon."""
    return {"timeout": REQUEST_TIMEOUT_S, "retry_times": MAX_REQUEST_ATTEMPTS}


def read_options() -> dict[str, Any]:
    """Return the options of a read of collections that `MilvusVectors` has counted.

    Nothing is written to them afterwards, so a read need not wait for the next tick of the server's clock, as it does
    with strong consistency (0.2 s).
    """
    return limits() | {"consistency_level": "Eventually"}


def create_collection(client: Any, name: str, dim: int) -> None:
    """Create a collection for the vectors of one view."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(KEY_FIELD, DataType.INT64, is_primary=True)
    schema.add_field(VECTOR_FIELD, DataType.FLOAT_VECTOR, dim=dim)
    # With weaker consistency, a read soon after a write may miss the written rows.
    client.create_collection(name, schema=schema, consistency_level="Strong", **limits())


def index_and_load(client: Any, names: list[str], cells: int | None) -> None:
    """Index and load new collections, FLAT if `cells` is None; all at the same time, because each takes seconds.

    Only the indexes are created one after another: while Milvus 2.3 begins with one, it misses that another was asked
    for, and notices it up to a minute later.
    """
    turn = Lock()

    def load(name: str) -> None:
        client.flush(name, retry_times=MAX_PREPARATION_ATTEMPTS)
        index = client.prepare_index_params()
        kind, params = ("FLAT", {}) if cells is None else ("IVF_FLAT", {"nlist": cells})
        index.add_index(VECTOR_FIELD, index_type=kind, metric_type="IP", params=params)
        with turn:
            client.create_index(name, index, retry_times=MAX_PREPARATION_ATTEMPTS)
        client.load_collection(name, retry_times=MAX_PREPARATION_ATTEMPTS)

    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(load, names))


def count_rows(client: Any, name: str, relation: int | None, waits: bool = True) -> int:
    """Count the rows of one relation, or of the whole collection.

    If it `waits`, the count includes all earlier writes, and takes 0.2 s or more. Only the first count of a collection
    need wait.
    """
    partitions, condition = None, ""
    if relation is not None:
        partitions = [partition_name(relation)]
        # Without a filter, milvus-lite counts the rows of all partitions.
        first, end = (position * ROWS_PER_RELATION for position in (relation, relation + 1))
        condition = f"{KEY_FIELD} >= {first} and {KEY_FIELD} < {end}"
    (row,) = client.query(
        name,
        filter=condition,
        output_fields=["count(*)"],
        partition_names=partitions,
        **(limits() if waits else read_options()),
    )
    return int(row["count(*)"])


def partition_name(relation: int) -> str:
    """Return the partition name of a relation.

    The name uses the position of the relation, because an ID may contain characters that a partition name cannot.
    """
    return f"relation_{relation:03d}"


def collection_name(generation: Path) -> str:
    """Return a unique name that contains the index name, with only characters that Milvus allows.

    The collection of a view has this name, followed by `_` and the view.
    """
    slug = re.sub(r"[^A-Za-z0-9_]+", "_", generation.absolute().parent.name)[:100]
    return f"rcml_{slug}_{generation.name.rpartition('-')[2]}_{secrets.token_hex(6)}"


def write_note(generation: Path, note: Note) -> None:
    """Write a note file for the collections of `generation`, durably."""
    path = generation.with_name(f".{generation.name}.{secrets.token_hex(4)}.{_NOTE}")
    path.write_text(note.model_dump_json() + "\n", encoding="utf-8")
    sync_path(path)
    sync_path(path.parent)


def connect(uri: str) -> Any:
    """Connect to the Milvus server at `uri`.

    Raises:
        UnreachableError: the server does not answer.
        InputError: pymilvus is not installed.
    """
    try:
        from pymilvus import MilvusClient
    except ModuleNotFoundError:
        raise InputError(
            "Storing vectors in Milvus requires pymilvus, which is not installed. Run `pip install 'rcml[milvus]'`."
        ) from None
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # pymilvus raises every error that it logs
    with server_errors(uri):
        return MilvusClient(uri, timeout=REQUEST_TIMEOUT_S, grpc_options=_CHANNEL)


@contextmanager
def server_errors(uri: str) -> Iterator[None]:
    """Convert errors of the server to an `UnreachableError` that names the server."""
    from grpc import RpcError
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, RpcError) as error:
        reason = " ".join(str(getattr(error, "message", error)).split())
        raise UnreachableError(
            f"Milvus at {uri} is unavailable ({reason}). Start it, or check the network connection."
        ) from None


def unlike(place: Place, view: View, what: str) -> ArtifactError:
    """Return the error for the collection of a view that does not match its generation; `what` is the mismatch."""
    return ArtifactError(
        f"Collection {place.view(view)} in Milvus at {place.uri} {what}. Restore a backup, or rebuild the index."
    )
