"""Endpoints that retrieve the items related to a query under a relation."""

from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import APIRouter, Request
from orjson import Fragment

from indexes.live.snapshot import Snapshot
from indexes.reader import Reader
from indexes.search.retrieve import Found
from model.embeddings.free_text import FreeTextRelation
from service.engine.item_json import asked_relation, version
from service.http.openapi import problems, uploading
from service.lifecycle.app_state import ReadyEngine
from service.requests.batch_replies import each_reply
from service.requests.context import RequestContext
from service.requests.json_route import JsonRoute
from service.requests.retrieve_answer import next_cursor, plain_answer, results
from service.schemas.retrieve import (
    RetrieveAnswer,
    RetrieveBatch,
    RetrieveBatchAnswer,
    RetrieveRequest,
)
from service.telemetry.prometheus import Stage

router = APIRouter(tags=["questions"], route_class=JsonRoute)


@router.post(
    "/retrieve",
    summary="Retrieve related items",
    response_model=RetrieveAnswer,
    responses=problems(400, 404, 413, 415, 422, 429, 503),
    openapi_extra=uploading(RetrieveRequest),
)
async def retrieve(asked: RetrieveRequest, engine: ReadyEngine, request: Request) -> bytes:
    """Rank the items of the catalogue by their cosine similarity to a query under a relation.

    The query is a catalogue item (`item_id`), several catalogue items (`item_ids`), or a new item (`text`, `picture` or
    both), which needs no purchase history. Query items are never among the results.

    The relation is one of GET /relations, a free-text relation (`{"description": ...}`, if the index was built with
    `--token-store`), or several weighted relations (`relations`). Without a relation, each result is scored under its
    best relation. The intra-sample relation finds look-alikes.
    """
    return await _retrieve(asked, RequestContext.of(request, engine))


@router.post(
    "/retrieve/batch",
    summary="Retrieve related items for many queries",
    response_model=RetrieveBatchAnswer,
    responses=problems(400, 413, 415, 422, 503),
)
async def retrieve_batch(asked: RetrieveBatch, engine: ReadyEngine, request: Request) -> bytes:
    """Answer many POST /retrieve requests. A rejected request gets a problem in place of an answer."""

    async def answer(question: RetrieveRequest) -> Any:
        return Fragment(await _retrieve(question, RequestContext.of(request, engine)))

    return orjson.dumps({"replies": await each_reply(asked.questions, answer, "/retrieve")})


async def _retrieve(asked: RetrieveRequest, query: RequestContext) -> bytes:
    engine = query.engine
    question = await query.question(asked)
    with query.stage(Stage.SEARCH):
        reader = engine.index.reader()
        found, filter_use = await engine.retrieve(reader, question)
    snapshot = reader.snapshot
    items = await engine.items(snapshot, [one.row for one in found], asked.fields)
    query.shadow.offer(engine, question, snapshot, found, query.spent[Stage.SEARCH])
    fallbacks = sum(one.fallback for one in found)
    free_texts = [one.relation for one in question.relations if isinstance(one.relation, FreeTextRelation)]
    new = asked.item_id is None and asked.item_ids is None
    answer = plain_answer(
        version(snapshot),
        _query_echo(asked, query, snapshot),
        _relation_echo(asked, snapshot),
        asked.similarity,
        results(found, list(map(Fragment, items)), asked.cursor),
        None if asked.diversity else next_cursor(asked.k, asked.cursor, len(found)),
        query.milliseconds(Stage.SEARCH),
        query.took_ms,
    )
    answer["how"] = "rescored" if free_texts else "encoded" if new else "indexed"
    answer["familiarity"] = [_familiarity(reader, one) for one in free_texts]
    answer["fallback"] = _fallback_reason(asked, found, fallbacks) if fallbacks else None
    for stage in (Stage.FETCH, Stage.ENCODE):
        answer["timings"][stage] = query.milliseconds(stage)
    if filter_use is not None:
        answer["timings"]["filter"] = filter_use._asdict()
    return orjson.dumps(answer)


def _query_echo(asked: RetrieveRequest, query: RequestContext, snapshot: Snapshot) -> Any:
    item_json = query.engine.item_json
    if asked.item_id is not None:
        return Fragment(*item_json.summaries(snapshot, [snapshot.row(asked.item_id)]))
    if asked.item_ids is not None:
        rows = [snapshot.row(one) for one in asked.item_ids]
        return {"items": list(map(Fragment, item_json.summaries(snapshot, rows)))}
    return {"text": asked.text, "picture": asked.picture is not None}


def _relation_echo(asked: RetrieveRequest, snapshot: Snapshot) -> Any:
    if asked.relation is not None:
        return asked_relation(snapshot, asked.relation).model_dump()
    if asked.relations is not None:
        return [
            {"relation": asked_relation(snapshot, one.relation).model_dump(), "weight": one.weight}
            for one in asked.relations
        ]
    return None


def _familiarity(reader: Reader, relation: FreeTextRelation) -> dict[str, Any]:
    known = reader.novelty(relation)
    return {
        "description": relation.description,
        "nearest": known.nearest.relation_id,
        "cosine": known.cosine,
        "far": known.out_of_distribution,
    }


def _fallback_reason(asked: RetrieveRequest, found: Sequence[Found], fallbacks: int) -> str:
    page = f" (starting at rank {asked.cursor + 1})" if asked.cursor else ""
    return (
        f"Under the requested relation, {len(found) - fallbacks} of {asked.k} results{page} reach the minimum score of "
        f"{asked.min_score:g}. Added from other relations: {fallbacks}."
    )
