"""Collections on a Milvus server: how they are named, created, counted, and dropped when unused.

For each collection, a note file next to the generations contains its name. The note is written before the collection is
created and removed after the collection is dropped. `drop_unused` can therefore find an unused collection even if the
process that created it was killed.
"""

import logging
import re
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from model.console import say
from model.durable_files import sync_path
from model.errors import ArtifactError, InputError, RcmlError, UnreachableError
from model.plain_file import read_plain
from model.similarity import View

KEY_FIELD = "place"
"""Primary key field, whose value is the position of the relation times `ROWS_PER_RELATION`, plus the row."""

ROWS_PER_RELATION = 2**32
"""Number of keys reserved for each relation."""

MILVUS_FILE = "milvus.json"
"""File of a generation that refers to the collection with its vectors."""


REQUEST_TIMEOUT_S = 10.0
"""Timeout in seconds of one request, such as a search. Flushing, loading and dropping a collection have no timeout."""


_CHANNEL = {"grpc.keepalive_permit_without_calls": 0, "grpc.keepalive_time_ms": 60_000}
"""gRPC options that disable pings on idle connections.

By default, pymilvus pings every 10 s, and some gRPC servers close the connection in response.
"""


_NOTE = "collection"


class Place(BaseModel):
    """Content of `milvus.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    collection: str
    count: int
    dim: int
    relations: int


class Note(BaseModel):
    """Content of a note file, which records a collection that exists or is about to be created."""

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
                client.drop_collection(note.collection)
        except RcmlError as error:
            say(f"Collection {note.collection} is no longer needed but could not be dropped. {error}")
        else:
            path.unlink()


def check_server(uri: str) -> None:
    """Check that a server answers, before a long operation starts.

    Raises:
        UnreachableError: the server does not answer.
        InputError: pymilvus is not installed.
    """
    with closing(connect(uri)) as client, server_errors(uri):
        client.get_server_version(timeout=REQUEST_TIMEOUT_S)


def create_collection(client: Any, collection: str, dim: int) -> None:
    """Create a collection with a vector field and a FLAT index for each view."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(KEY_FIELD, DataType.INT64, is_primary=True)
    for view in View:
        schema.add_field(view.value, DataType.FLOAT_VECTOR, dim=dim)
    # With weaker consistency, a read soon after a write may miss the written rows.
    client.create_collection(collection, schema=schema, consistency_level="Strong")
    params = client.prepare_index_params()
    for view in View:
        params.add_index(view.value, index_type="FLAT", metric_type="IP")
    # Do not wait for the index, because the collection is still empty.
    client.create_index(collection, params, sync=False)


def count_rows(client: Any, collection: str, relation: int | None) -> int:
    """Count the rows of one relation, or of the whole collection."""
    partitions, condition = None, ""
    if relation is not None:
        partitions = [partition_name(relation)]
        # Without a filter, milvus-lite counts the rows of all partitions.
        first, end = (position * ROWS_PER_RELATION for position in (relation, relation + 1))
        condition = f"{KEY_FIELD} >= {first} and {KEY_FIELD} < {end}"
    (row,) = client.query(
        collection,
        filter=condition,
        output_fields=["count(*)"],
        partition_names=partitions,
        timeout=REQUEST_TIMEOUT_S,
    )
    return int(row["count(*)"])


def partition_name(relation: int) -> str:
    """Return the partition name of a relation.

    The name uses the position of the relation, because an ID may contain characters that a partition name cannot.
    """
    return f"relation_{relation:03d}"


def collection_name(generation: Path) -> str:
    """Return a unique collection name that contains the index name, with only characters that Milvus allows."""
    slug = re.sub(r"[^A-Za-z0-9_]+", "_", generation.absolute().parent.name)[:100]
    return f"rcml_{slug}_{generation.name.rpartition('-')[2]}_{secrets.token_hex(6)}"


def write_note(generation: Path, note: Note) -> None:
    """Write a note file for the collection of `generation`, durably."""
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


def unlike(place: Place, what: str) -> ArtifactError:
    """Return the error for a collection that does not match its generation; `what` describes the mismatch."""
    return ArtifactError(
        f"Collection {place.collection} in Milvus at {place.uri} {what}. Restore a backup, or rebuild the index."
    )
