"""Endpoints that rank and validate relations between two items."""

import asyncio
from collections.abc import Sequence

from fastapi import APIRouter, Request

from indexes.search.pairs import PairItem, Verdict
from model.errors import RcmlError
from service.engine.engine import MAX_READ_ON_LOOP
from service.engine.item_json import asked_item, known_relation, version
from service.http.openapi import problems
from service.lifecycle.app_state import ReadyEngine
from service.requests.batch_replies import each_reply, reply_of
from service.requests.context import CONCURRENT_PARTS, RequestContext, similarity_of
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
from service.telemetry.prometheus import Stage

router = APIRouter(tags=["questions"], route_class=JsonRoute)


@router.post(
    "/relation-type",
    summary="Rank relations between two items",
    response_model=RelationTypeAnswer,
    responses=problems(400, 404, 413, 415, 422, 429, 503),
)
async def relation_type(
    asked: RelationTypeRequest, engine: ReadyEngine, request: Request
) -> RelationTypeAnswer:
    """Rank all relations, except the intra-sample relation, by the probability that they link two items.

    Each item may be new: send its text, its picture or both. The score is the cosine similarity of the two items under
    the relation.
    """
    return await _relation_type(asked, RequestContext.of(request, engine))


@router.post(
    "/relation-type/batch",
    summary="Rank relations for many pairs",
    response_model=RelationTypeBatchAnswer,
    responses=problems(400, 413, 415, 422, 503),
)
async def relation_type_batch(
    asked: RelationTypeBatch, engine: ReadyEngine, request: Request
) -> RelationTypeBatchAnswer:
    """Answer many POST /relation-type requests. A rejected request gets a problem in place of an answer."""

    async def answer(question: RelationTypeRequest) -> RelationTypeAnswer:
        return await _relation_type(question, RequestContext.of(request, engine))

    replies = await each_reply(asked.questions, answer, "/relation-type")
    return RelationTypeBatchAnswer(replies=[RelationTypeReply(**reply) for reply in replies])


@router.post(
    "/validity",
    summary="Validate a relation between two items",
    response_model=ValidityAnswer,
    responses=problems(400, 404, 413, 415, 422, 429, 503),
)
async def validity(asked: ValidityRequest, engine: ReadyEngine, request: Request) -> ValidityAnswer:
    """Return the probability that a relation holds between two items. The order of the items does not matter."""
    [answer] = await _validities([asked], RequestContext.of(request, engine))
    if isinstance(answer, RcmlError):
        raise answer
    return answer


@router.post(
    "/validity/batch",
    summary="Validate many pairs",
    response_model=ValidityBatchAnswer,
    responses=problems(400, 413, 415, 422, 503),
)
async def validity_batch(asked: ValidityBatch, engine: ReadyEngine, request: Request) -> ValidityBatchAnswer:
    """Answer many POST /validity requests, all from the same version of the index.

    A rejected request gets a problem in place of an answer.
    """
    answers = await _validities(asked.questions, RequestContext.of(request, engine))
    return ValidityBatchAnswer(replies=[ValidityReply(**reply_of(one, "/validity")) for one in answers])


async def _relation_type(asked: RelationTypeRequest, query: RequestContext) -> RelationTypeAnswer:
    engine = query.engine
    item_a, item_b = await query.item(asked.item_a), await query.item(asked.item_b)
    reader = engine.index.reader()
    snapshot = reader.snapshot
    similarity = asked.similarity or similarity_of(snapshot, asked.item_a, asked.item_b)
    with query.stage(Stage.SEARCH):
        scores = await engine.run_in_thread(reader.relation_scores, item_a, item_b, similarity)
    await engine.turns.take(len(scores))
    return RelationTypeAnswer(
        version=version(snapshot),
        item_a=asked_item(snapshot, asked.item_a, engine.root_path),
        item_b=asked_item(snapshot, asked.item_b, engine.root_path),
        similarity=similarity,
        calibration=reader.calibration,
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


async def _validities(
    questions: Sequence[ValidityRequest], query: RequestContext
) -> list[ValidityAnswer | RcmlError]:
    """Return an answer or an error for each request. All answers are from one snapshot, despite concurrent changes."""
    engine = query.engine
    turns = asyncio.Semaphore(CONCURRENT_PARTS)

    async def items(asked: ValidityRequest) -> tuple[PairItem, PairItem] | RcmlError:
        async with turns:
            try:
                return await query.item(asked.item_a), await query.item(asked.item_b)
            except RcmlError as error:
                return error.with_traceback(None)  # it would refer to the frame that keeps the error: a cycle

    pairs = await asyncio.gather(*map(items, questions))
    claims = [
        (*pair, asked.relation)
        for asked, pair in zip(questions, pairs, strict=True)
        if not isinstance(pair, RcmlError)
    ]
    with query.stage(Stage.SEARCH):
        reader = engine.index.reader()
        verdicts = await engine.run_in_thread(reader.validities, claims)
    snapshot, given, took_ms = reader.snapshot, iter(verdicts), query.took_ms

    def answer(asked: ValidityRequest, verdict: Verdict | RcmlError) -> ValidityAnswer | RcmlError:
        if isinstance(verdict, RcmlError):
            return verdict
        return ValidityAnswer(
            version=version(snapshot),
            item_a=asked_item(snapshot, asked.item_a, engine.root_path),
            item_b=asked_item(snapshot, asked.item_b, engine.root_path),
            relation=known_relation(snapshot, asked.relation),
            probability=verdict.probability,
            valid=verdict.valid,
            threshold=verdict.threshold,
            calibration=reader.calibration,
            took_ms=took_ms,
        )

    def answers() -> list[ValidityAnswer | RcmlError]:
        return [
            answer(asked, pair if isinstance(pair, RcmlError) else next(given))
            for asked, pair in zip(questions, pairs, strict=True)
        ]

    # A hundred answers take longer than the event loop may be held.
    return await engine.run_in_thread(answers) if len(questions) > MAX_READ_ON_LOOP else answers()
