"""Endpoint that returns the vectors of items, for search or training outside this service."""

from base64 import b64encode
from typing import Any

import orjson
from fastapi import APIRouter, Request
from jaxtyping import Float32
from numpy import ndarray
from orjson import Fragment

from indexes.reader import Reader
from model.similarity import View
from service.engine.item_json import asked_item, asked_relation, version
from service.http.openapi import problems
from service.lifecycle.app_state import ReadyEngine
from service.requests.context import RequestContext
from service.requests.json_route import JsonRoute
from service.schemas.embeddings import Coding, EmbeddingsAnswer, EmbeddingsRequest
from service.telemetry.prometheus import Stage

router = APIRouter(tags=["questions"], route_class=JsonRoute)


@router.post(
    "/embeddings",
    summary="Get the vectors of items",
    response_model=EmbeddingsAnswer,
    responses=problems(400, 404, 413, 415, 422, 429, 503),
)
async def embeddings(asked: EmbeddingsRequest, engine: ReadyEngine, request: Request) -> bytes:
    """Return the vectors of catalogue items and new items under a relation.

    All vectors are from the same version of the index and have unit length. Vectors of catalogue items are stored, and
    therefore returned, in half precision.
    """
    query = RequestContext.of(request, engine)
    items, relation = await query.items(asked.items), await query.relation(asked.relation)
    views = list(dict.fromkeys(asked.views))
    with query.stage(Stage.SEARCH):
        reader = engine.index.reader()
        vectors = await engine.run_in_thread(reader.vectors, items, relation, views)
    return await engine.run_in_thread(_answer, asked, query, reader, vectors)


def _answer(
    asked: EmbeddingsRequest,
    query: RequestContext,
    reader: Reader,
    vectors: dict[View, Float32[ndarray, "items dim"]],
) -> bytes:
    """Serialise the response. Must be called in a thread, because the vectors of 100 items have a million digits."""
    snapshot = reader.snapshot
    written = [
        {view.value: _coded(found[place], asked.encoding) for view, found in vectors.items()}
        for place in range(len(asked.items))
    ]
    answer = {
        "version": version(snapshot),
        "relation": asked_relation(snapshot, asked.relation).model_dump(),
        "dim": reader.dim,
        "encoding": asked.encoding,
        "embeddings": [
            # Each item is serialised by itself, so that the thread does not hold the interpreter for long.
            Fragment(
                orjson.dumps(
                    {"item": asked_item(snapshot, item, query.engine.root_path).model_dump(), **own},
                    option=orjson.OPT_SERIALIZE_NUMPY,
                )
            )
            for item, own in zip(asked.items, written, strict=True)
        ],
        "took_ms": query.took_ms,
    }
    return orjson.dumps(answer)


def _coded(vector: Float32[ndarray, " dim"], coding: Coding) -> Any:
    if not vector.any():
        return None
    return vector if coding == "float" else b64encode(vector.astype("<f4").tobytes()).decode()
