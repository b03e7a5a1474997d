"""Collections on a Milvus server: named, noted down before they are made, counted, and dropped when nobody needs them.

A note beside the generations says that there is a collection, from before it is made until it is dropped: whatever is
killed, `drop_unused` finds what nobody needs.
"""

import logging
import re
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from model.artifact import sync_path
from model.console import say
from model.errors import ArtifactError, InputError, RcmlError, UnreachableError
from model.similarity import View

KEY_FIELD = "place"
"""Field of the key: relation times `ROWS_PER_RELATION`, plus the row."""

ROWS_PER_RELATION = 2**32

MILVUS_FILE = "milvus.json"
"""File of a generation that stands for its vectors."""


REQUEST_TIMEOUT_S = 10.0
"""Seconds for a search or a batch; flushing, loading and dropping may take as long as they take."""


_CHANNEL = {"grpc.keepalive_permit_without_calls": 0, "grpc.keepalive_time_ms": 60_000}
"""pymilvus pings every 10 s also where nothing is asked, for which servers of gRPC's own making hang up."""


_NOTE = "collection"


class Place(BaseModel):
    """`milvus.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    collection: str
    count: int
    dim: int
    relations: int


class Note(BaseModel):
    """A note beside the generations that there is, or may be, a collection."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str
    collection: str


def drop_unused(index: Path) -> None:
    """Drop the collections of generations that are no more, or never came to be; the index must be locked.

    What cannot be dropped now is reported, and tried again the next time.
    """
    for path in sorted(index.glob(f".generation-*.{_NOTE}")):
        if (index / path.name.split(".")[1]).exists():
            continue
        try:
            note = Note.model_validate_json(path.read_bytes())
        except ValueError:  # the power failed before there was a collection
            path.unlink()
            continue
        try:
            with closing(connect(note.uri)) as client, server_errors(note.uri):
                client.drop_collection(note.collection)
        except RcmlError as error:
            say(f"The collection {note.collection} is no longer needed, and could not be dropped. {error}")
        else:
            path.unlink()


def check_server(uri: str) -> None:
    """Check that a server answers, before long work.

    Raises:
        UnreachableError: it does not.
        InputError: pymilvus is missing.
    """
    with closing(connect(uri)) as client, server_errors(uri):
        client.get_server_version(timeout=REQUEST_TIMEOUT_S)


def create_collection(client: Any, collection: str, dim: int) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(KEY_FIELD, DataType.INT64, is_primary=True)
    for view in View:
        schema.add_field(view.value, DataType.FLOAT_VECTOR, dim=dim)
    # Without it, a read soon after a write may miss what was written.
    client.create_collection(collection, schema=schema, consistency_level="Strong")
    params = client.prepare_index_params()
    for view in View:
        params.add_index(view.value, index_type="FLAT", metric_type="IP")
    client.create_index(collection, params, sync=False)  # there is nothing to wait for yet


def count_rows(client: Any, collection: str, relation: int | None) -> int:
    partitions, condition = None, ""
    if relation is not None:
        partitions = [partition_name(relation)]
        # milvus-lite counts all partitions unless there is a filter.
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
    """Name the partition of a relation by position, as its id may hold characters that no name can."""
    return f"relation_{relation:03d}"


def collection_name(generation: Path) -> str:
    """Make a unique name for a collection, from that of the index, of characters that Milvus allows."""
    slug = re.sub(r"[^A-Za-z0-9_]+", "_", generation.absolute().parent.name)[:100]
    return f"rcml_{slug}_{generation.name.rpartition('-')[2]}_{secrets.token_hex(6)}"


def write_note(generation: Path, note: Note) -> None:
    path = generation.with_name(f".{generation.name}.{secrets.token_hex(4)}.{_NOTE}")
    path.write_text(note.model_dump_json() + "\n", encoding="utf-8")
    sync_path(path)
    sync_path(path.parent)


def connect(uri: str) -> Any:
    try:
        from pymilvus import MilvusClient
    except ModuleNotFoundError:
        raise InputError(
            "Vectors in Milvus need pymilvus, which is not installed: pip install 'rcml[milvus]'."
        ) from None
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # what it logs with a traceback, it raises too
    with server_errors(uri):
        return MilvusClient(uri, timeout=REQUEST_TIMEOUT_S, grpc_options=_CHANNEL)


@contextmanager
def server_errors(uri: str) -> Iterator[None]:
    """Turn errors of the server into an `UnreachableError` that names it."""
    from grpc import RpcError
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, RpcError) as error:
        reason = " ".join(str(getattr(error, "message", error)).split())
        raise UnreachableError(
            f"Milvus at {uri} cannot be used now ({reason}); start it, or see to the network between."
        ) from None


def unlike(place: Place, what: str) -> ArtifactError:
    return ArtifactError(
        f"The collection {place.collection} of Milvus at {place.uri} {what}; restore a snapshot, or build the index "
        "again."
    )
