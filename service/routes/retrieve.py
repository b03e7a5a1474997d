"""The questions of the service: which items go with this, which relation links two, does one hold."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel

from indexes.live.snapshot import Snapshot
from indexes.search.pairs import Compared
from indexes.search.retrieve import Found
from model.embeddings.encoding import WordedRelation
from model.errors import RcmlError
from service.engine.engine import Engine, Verdict
from service.engine.item_json import asked_item, asked_relation, known_relation, version
from service.http.openapi import problems, uploading
from service.http.problems import refusal_of
from service.lifecycle.engine_holder import ReadyEngine
from service.requests.context import AT_ONCE, Query, similarity_of
from service.requests.json_route import JsonRoute
from service.schemas.fields import RelationSummary
from service.schemas.pairs import (
    RankedRelation,
    RelationTypeAnswer,
    RelationTypeBatch,
    RelationTypeBatchAnswer,
    RelationTypeReply,
    RelationTypeRequest,
    ValidityAnswer,
    ValidityBatch,
    ValidityBatchAnswer,
    ValidityReply,
    ValidityRequest,
)
from service.schemas.retrieve import (
    DEEPEST,
    RetrieveAnswer,
    RetrieveBatch,
    RetrieveBatchAnswer,
    RetrieveRequest,
)
from service.telemetry.prometheus import Stage

Asked = TypeVar("Asked", bound=BaseModel)

router = APIRouter(tags=["questions"], route_class=JsonRoute)


@router.post(
    "/retrieve",
    summary="Which items go with this one?",
    response_model=RetrieveAnswer,
    responses=problems(400, 404, 413, 415, 422, 429, 503),
    openapi_extra=uploading(RetrieveRequest),
)
async def retrieve(asked: RetrieveRequest, engine: ReadyEngine, request: Request) -> bytes:
    """Rank the items that go with a query under a relation, by cosine similarity.

    The query is an item of the catalogue (`item_id`), which is never among its own results, several at once
    (`item_ids`), or a new one, which needs no history (`text`, `picture`, or both). Under the relation of an item with
    itself, look-alikes are found. The relation is one of GET /relations, any in words (`{"description": ...}`) if the
    index keeps tokens, several with weights (`relations`), or none: then each result is found under the relation that
    suits it best.
    """
    return await _retrieve(asked, Query.of(request, engine))


@router.post(
    "/retrieve/batch",
    summary="Many questions at once",
    response_model=RetrieveBatchAnswer,
    responses=problems(400, 413, 415, 422, 503),
)
async def retrieve_batch(asked: RetrieveBatch, engine: ReadyEngine, request: Request) -> bytes:
    """Answer many questions of POST /retrieve. One that is refused has its problem in place of an answer."""

    async def answer(question: RetrieveRequest) -> Any:
        return orjson.Fragment(await _retrieve(question, Query.of(request, engine)))

    return orjson.dumps({"replies": await _each(asked.questions, answer, "/retrieve")})


@router.post(
    "/relation-type",
    summary="Which relation links these two?",
    response_model=RelationTypeAnswer,
    responses=problems(400, 404, 413, 415, 422, 429, 503),
)
async def relation_type(
    asked: RelationTypeRequest, engine: ReadyEngine, request: Request
) -> RelationTypeAnswer:
    """Rank all relations between different items by how probable it is that they link these two.

    Either may be new: it is known by its text, its picture, or both. The score is the cosine of the two under the
    relation.
    """
    return await _relation_type(asked, Query.of(request, engine))


@router.post(
    "/relation-type/batch",
    summary="Many pairs at once",
    response_model=RelationTypeBatchAnswer,
    responses=problems(400, 413, 415, 422, 503),
)
async def relation_type_batch(
    asked: RelationTypeBatch, engine: ReadyEngine, request: Request
) -> RelationTypeBatchAnswer:
    """Answer many questions of POST /relation-type. One that is refused has its problem in place of an answer."""

    async def answer(question: RelationTypeRequest) -> RelationTypeAnswer:
        return await _relation_type(question, Query.of(request, engine))

    replies = await _each(asked.questions, answer, "/relation-type")
    return RelationTypeBatchAnswer(replies=[RelationTypeReply(**reply) for reply in replies])


@router.post(
    "/validity",
    summary="Does this relation hold?",
    response_model=ValidityAnswer,
    responses=problems(400, 404, 413, 415, 422, 429, 503),
)
async def validity(asked: ValidityRequest, engine: ReadyEngine, request: Request) -> ValidityAnswer:
    """Say how surely a relation holds between two items; the order of the two does not matter."""
    [answer] = await _validities([asked], Query.of(request, engine))
    if isinstance(answer, RcmlError):
        raise answer
    return answer


@router.post(
    "/validity/batch",
    summary="Many claims at once",
    response_model=ValidityBatchAnswer,
    responses=problems(400, 413, 415, 422, 503),
)
async def validity_batch(asked: ValidityBatch, engine: ReadyEngine, request: Request) -> ValidityBatchAnswer:
    """Answer many questions of POST /validity, all of one version of the index.

    One that is refused has its problem in place of an answer.
    """
    answers = await _validities(asked.questions, Query.of(request, engine))
    return ValidityBatchAnswer(replies=[ValidityReply(**_reply(one, "/validity")) for one in answers])


async def _retrieve(asked: RetrieveRequest, query: Query) -> bytes:
    engine = query.engine
    question = await query.question(asked)
    with query.stage(Stage.SEARCH):
        snapshot, found = await engine.retrieve(question)
    query.shadow.offer(engine, question, snapshot, found, query.spent[Stage.SEARCH])
    fallbacks = sum(one.fallback for one in found)
    worded = [one.relation for one in question.relations if isinstance(one.relation, WordedRelation)]
    new = asked.item_id is None and asked.item_ids is None
    more = len(found) == asked.k and asked.cursor + asked.k < DEEPEST and not asked.diversity
    answer = {
        "version": version(snapshot),
        "query": _asked_about(asked, query, snapshot),
        "relation": _named(asked, snapshot),
        "similarity": asked.similarity,
        "how": "rescored" if worded else "encoded" if new else "indexed",
        "familiarity": [_familiarity(one, engine) for one in worded],
        "fallback": _why(asked, found, fallbacks) if fallbacks else None,
        "results": _results(asked, query, snapshot, found),
        "next_cursor": asked.cursor + asked.k if more else None,
        "timings": {
            "fetch": query.milliseconds(Stage.FETCH),
            "encode": query.milliseconds(Stage.ENCODE),
            "search": query.milliseconds(Stage.SEARCH),
        },
        "took_ms": query.took_ms,
    }
    return orjson.dumps(answer)


def _results(
    asked: RetrieveRequest, query: Query, snapshot: Snapshot, found: Sequence[Found]
) -> list[dict[str, Any]]:
    items = query.engine.rendering.items(snapshot, [one.row for one in found], asked.fields)
    return [
        {
            "rank": rank,
            "score": one.score,
            "relation": one.relation,
            "promoted": one.promoted,
            "fallback": one.fallback,
            "item": item,
        }
        for rank, (one, item) in enumerate(zip(found, items, strict=True), start=asked.cursor + 1)
    ]


def _asked_about(asked: RetrieveRequest, query: Query, snapshot: Snapshot) -> Any:
    rendering = query.engine.rendering
    if asked.item_id is not None:
        return rendering.summaries(snapshot, [snapshot.row(asked.item_id)])[0]
    if asked.item_ids is not None:
        return {"items": rendering.summaries(snapshot, [snapshot.row(one) for one in asked.item_ids])}
    return {"text": asked.text, "picture": asked.picture is not None}


def _named(asked: RetrieveRequest, snapshot: Snapshot) -> Any:
    if asked.relation is not None:
        return asked_relation(snapshot, asked.relation).model_dump()
    if asked.relations is not None:
        return [
            {"relation": asked_relation(snapshot, one.relation).model_dump(), "weight": one.weight}
            for one in asked.relations
        ]
    return None


def _familiarity(relation: WordedRelation, engine: Engine) -> dict[str, Any]:
    known = engine.index.familiarity(relation)
    return {
        "description": relation.description,
        "nearest": known.nearest.relation_id,
        "cosine": known.cosine,
        "far": known.far,
    }


def _why(asked: RetrieveRequest, found: Sequence[Found], fallbacks: int) -> str:
    page = f" from place {asked.cursor + 1} on" if asked.cursor else ""
    return (
        f"Under what was asked, {len(found) - fallbacks} of {asked.k} items{page} reach {asked.min_score:g}; "
        f"{fallbacks} that reach it under other relations follow."
    )


async def _relation_type(asked: RelationTypeRequest, query: Query) -> RelationTypeAnswer:
    engine = query.engine
    item_a, item_b = await query.item(asked.item_a), await query.item(asked.item_b)
    similarity = asked.similarity or similarity_of(engine.index.snapshot, asked.item_a, asked.item_b)
    with query.stage(Stage.SEARCH):
        snapshot, scores = await engine.relation_types(item_a, item_b, similarity)
    return RelationTypeAnswer(
        version=version(snapshot),
        item_a=asked_item(snapshot, asked.item_a),
        item_b=asked_item(snapshot, asked.item_b),
        similarity=similarity,
        calibration=engine.index.calibration,
        took_ms=query.took_ms,
        relations=[
            RankedRelation(
                rank=rank,
                score=scored.score,
                probability=scored.probability,
                relation=RelationSummary.of(scored.relation),
            )
            for rank, scored in enumerate(scores, start=1)
        ],
    )


async def _validities(questions: Sequence[ValidityRequest], query: Query) -> list[ValidityAnswer | RcmlError]:
    """The answer to each question, or why there is none; all of one snapshot, whatever is changed meanwhile."""
    engine = query.engine
    turns = asyncio.Semaphore(AT_ONCE)

    async def items(asked: ValidityRequest) -> tuple[Compared, Compared] | RcmlError:
        async with turns:
            try:
                return await query.item(asked.item_a), await query.item(asked.item_b)
            except RcmlError as error:
                return error

    pairs = await asyncio.gather(*map(items, questions))
    claims = [
        (*pair, asked.relation)
        for asked, pair in zip(questions, pairs, strict=True)
        if not isinstance(pair, RcmlError)
    ]
    with query.stage(Stage.SEARCH):
        snapshot, verdicts = await engine.validities(claims)
    given = iter(verdicts)
    calibration, took_ms = engine.index.calibration, query.took_ms

    def answer(asked: ValidityRequest, verdict: Verdict | RcmlError) -> ValidityAnswer | RcmlError:
        if isinstance(verdict, RcmlError):
            return verdict
        return ValidityAnswer(
            version=version(snapshot),
            item_a=asked_item(snapshot, asked.item_a),
            item_b=asked_item(snapshot, asked.item_b),
            relation=known_relation(snapshot, asked.relation),
            probability=verdict.probability,
            valid=verdict.valid,
            threshold=verdict.threshold,
            calibration=calibration,
            took_ms=took_ms,
        )

    return [
        answer(asked, pair if isinstance(pair, RcmlError) else next(given))
        for asked, pair in zip(questions, pairs, strict=True)
    ]


async def _each(
    questions: Sequence[Asked], answer: Callable[[Asked], Awaitable[Any]], path: str
) -> list[dict[str, Any]]:
    """A reply to each question, a few at a time; what refuses one fails none of the others."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def reply(question: Asked) -> dict[str, Any]:
        async with turns:
            try:
                return _reply(await answer(question), path)
            except RcmlError as error:
                return _reply(error, path)

    return [*await asyncio.gather(*map(reply, questions))]


def _reply(answer: Any, path: str) -> dict[str, Any]:
    """An answer, or an error in place of one, as one reply of many to questions that `path` takes."""
    if not isinstance(answer, RcmlError):
        return {"status": 200, "answer": answer, "problem": None}
    refusal = refusal_of(answer)
    if refusal is None:
        raise answer
    problem = refusal.problem(path)
    return {"status": problem.status, "answer": None, "problem": problem.model_dump(exclude_none=True)}
