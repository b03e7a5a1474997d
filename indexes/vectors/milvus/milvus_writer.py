"""Writing of vectors to new Milvus collections, and measurement of the recall of their index.

The collections are written before the generation that refers to them is published; `milvus_collections.py` explains how
they are found if the process is killed in between.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from indexes.config import IndexKind
from model.errors import InputError
from model.similarity import View

from ..contract import (
    MAX_SCANNED_ITEMS,
    RECALL_QUERIES,
    ROUNDING,
    FileReport,
    Neighbours,
    Source,
    file_name,
    query_views,
)
from .milvus_backend import MAX_CELLS, MAX_MESSAGE_BYTES, MilvusVectors
from .milvus_collections import (
    KEY_FIELD,
    MILVUS_FILE,
    ROWS_PER_RELATION,
    VECTOR_FIELD,
    Note,
    Place,
    collection_name,
    connect,
    create_collection,
    index_and_load,
    limits,
    partition_name,
    server_errors,
    write_note,
)


def write_milvus(
    folder: Path,
    generation: Path,
    uri: str,
    relations: int,
    dim: int,
    source: Source,
    kind: IndexKind = "flat",
    min_recall: float = 0.0,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Fill collections for `generation`, create `folder`, and record the collections in it.

    An `ivf-flat` index scans the smallest number of cells that reaches `min_recall`. `advance` is called once per
    relation and view.

    Raises:
        ArtifactError: the server did not store all vectors.
        UnreachableError: the server does not answer, or rejects a request.
        InputError: pymilvus is not installed, or `kind` does not reach `min_recall`.
    """
    collection = collection_name(generation)
    write_note(generation, Note(uri=uri, collection=collection))
    place = Place(
        uri=uri, collection=collection, count=0, dim=dim, relations=relations, cells=None, reports={}
    )
    with closing(connect(uri)) as client, server_errors(uri):
        for view in View:
            create_collection(client, place.view(view), dim)
            for relation in range(relations):
                client.create_partition(place.view(view), partition_name(relation), **limits())
                count = 0
                for batch in _batches(relation, source(relation, view), dim):
                    client.insert(
                        place.view(view), batch, partition_name=partition_name(relation), **limits()
                    )
                    count += len(batch)
                place = place.model_copy(update={"count": count})
                advance()
        made_of: IndexKind = kind if place.count > MAX_SCANNED_ITEMS else "flat"
        cells = None if made_of == "flat" else min(2 ** round(np.log2(4 * place.count**0.5)), MAX_CELLS)
        index_and_load(client, [place.view(view) for view in View], cells)
    report = FileReport(kind=made_of, items=place.count, bytes_per_vector=4.0 * dim)
    reports = {file_name(relation, view): report for relation in range(relations) for view in View}
    place = place.model_copy(update={"cells": cells, "reports": reports})
    folder.mkdir()
    _write(folder, place)
    with closing(MilvusVectors(folder)) as vectors:
        if cells is not None:
            _write(folder, _measured(vectors, place, min_recall))


def _write(folder: Path, place: Place) -> None:
    (folder / MILVUS_FILE).write_text(place.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _measured(vectors: MilvusVectors, place: Place, min_recall: float) -> Place:
    """Add to each report the smallest number of cells that reaches `min_recall`.

    Raises:
        InputError: no number of cells reaches `min_recall`.
    """
    assert place.cells is not None, "only an index with cells has a recall"
    powers = (2**power for power in range(4, 16))
    choices = [*(cells for cells in powers if cells < place.cells), place.cells]
    reports = {}
    for relation in range(place.relations):
        for view in View:
            name = file_name(relation, view)
            rows, queries = _queries(vectors, relation, view)
            least = [other[-1] for other in _others(vectors.rough(relation, view, queries, 11, None), rows)]
            for cells in choices:
                found = _others(vectors.rough(relation, view, queries, 11, cells), rows)
                # Compare scores, not rows, because any of several equal items is a correct result.
                hits = [(one >= t - ROUNDING).sum() / 10 for one, t in zip(found, least, strict=True)]
                if (recall := float(np.mean(hits))) >= min_recall:
                    break
            else:
                raise InputError(
                    f"Index kind ivf-flat reaches a recall of at most {recall:.4f} (relation {relation}, {view} "
                    f"view), below --min-recall {min_recall}. Lower --min-recall, or use --kind flat, which is exact."
                )
            measured = {"effort": cells, "recall_at_10": round(recall, 4)}
            reports[name] = place.reports[name].model_copy(update=measured)
    return place.model_copy(update={"reports": reports})


def _queries(
    vectors: MilvusVectors, relation: int, view: View
) -> tuple[Int64[ndarray, " queries"], Float32[ndarray, "queries dim"]]:
    """Draw items whose vectors are compared with those of `view`, and return their rows and vectors."""
    asking = query_views(view)
    count = min(RECALL_QUERIES, vectors.count)
    drawn = np.random.default_rng(0).choice(vectors.count, count, replace=False)
    parts = zip(asking, np.array_split(drawn, len(asking)), strict=True)
    return drawn, np.concatenate([vectors.vectors(relation, one, rows.tolist()) for one, rows in parts])


def _others(found: list[Neighbours], rows: Int64[ndarray, " queries"]) -> list[Float32[ndarray, " k"]]:
    """Return the scores of the ten nearest items of each query, without the query item."""
    return [near.scores[near.rows != row][:10] for near, row in zip(found, rows.tolist(), strict=True)]


def _batches(
    relation: int, chunks: Iterable[Float32[ndarray, "chunk dim"]], dim: int
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a relation and view, in batches that fit into one message."""
    size = max(1, MAX_MESSAGE_BYTES // (4 * dim))
    key = relation * ROWS_PER_RELATION
    for chunk in chunks:
        vectors = np.asarray(chunk).astype(np.float16).astype(np.float32)
        for start in range(0, len(vectors), size):
            batch = [
                {KEY_FIELD: key + place, VECTOR_FIELD: vector}
                for place, vector in enumerate(vectors[start : start + size])
            ]
            key += len(batch)
            yield batch
