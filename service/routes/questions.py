"""The three questions of the service: which items go with this, which relation links two, does one hold."""

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import ParamSpec, TypeVar

from anyio import to_thread
from fastapi import APIRouter, Depends, HTTPException, Request

from model.encoding import WordedRelation

from ..engine import Engine
from ..loading import ReadyEngine
from ..openapi import problems
from ..schemas import (
    ItemSummary,
    RankedRelation,
    RelationInWords,
    RelationSummary,
    RelationTypeAnswer,
    RelationTypeRequest,
    RetrieveAnswer,
    RetrieveRequest,
    RetrieveResult,
    TextQuery,
    ValidityAnswer,
    ValidityRequest,
)

P = ParamSpec("P")
T = TypeVar("T")


async def _json_only(request: Request) -> None:
    """Refuse a body that says it is something other than JSON; curl says so unless told otherwise."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    empty = not await request.body()
    if not empty and kind != "application/json" and not kind.endswith("+json"):
        sent = f"{kind} was sent" if kind else "the request does not say what its body is"
        raise HTTPException(
            415, f"The body must be JSON; {sent}. Send it with Content-Type: application/json."
        )


router = APIRouter(tags=["questions"], dependencies=[Depends(_json_only)])


@router.post(
    "/retrieve", summary="Which items go with this one?", responses=problems(400, 404, 413, 415, 422, 503)
)
async def retrieve(question: RetrieveRequest, engine: ReadyEngine) -> RetrieveAnswer:
    """Rank the items that go with a query under a relation, by cosine similarity.

    The query is an item of the catalogue (`item_id`), which is never among its own results, or a new one in
    words (`text`), which needs no history. Under the relation of an item with itself, look-alikes are found. The
    relation is one of GET /relations, or any in words (`{"description": ...}`), if the index keeps tokens.
    """
    start = perf_counter()
    relation: str | WordedRelation
    if isinstance(question.relation, RelationInWords):
        relation = await to_thread.run_sync(engine.read_relation, question.relation.description)
    else:
        relation = question.relation
    asked = (relation, question.similarity, question.k, question.selection)
    query: ItemSummary | TextQuery
    if question.text is not None:
        # The network takes tens of milliseconds and has a lock: never on the loop.
        hits = await to_thread.run_sync(engine.retrieve_for_text, question.text, *asked)
        query = TextQuery(text=question.text)
    else:
        assert question.item_id is not None, "a request has an item_id or a text"
        if isinstance(relation, WordedRelation):
            hits = await to_thread.run_sync(engine.retrieve, question.item_id, *asked)
        else:
            hits = await _answer(engine, engine.retrieve, question.item_id, *asked)
        query = ItemSummary.of(engine.item(question.item_id))
    return RetrieveAnswer(
        query=query,
        relation=question.relation
        if isinstance(question.relation, RelationInWords)
        else RelationSummary.of(engine.relation(question.relation)),
        similarity=question.similarity,
        how="rescored"
        if isinstance(question.relation, RelationInWords)
        else "indexed"
        if question.text is None
        else "encoded",
        took_ms=_milliseconds_since(start),
        results=[
            RetrieveResult(rank=rank, score=hit.score, item=ItemSummary.of(hit.item))
            for rank, hit in enumerate(hits, start=1)
        ],
    )


@router.post(
    "/relation-type",
    summary="Which relation links these two?",
    responses=problems(400, 404, 413, 415, 422, 503),
)
async def relation_type(question: RelationTypeRequest, engine: ReadyEngine) -> RelationTypeAnswer:
    """Rank all relations between different items by the cosine similarity of the two under each."""
    start = perf_counter()
    scores = engine.relation_types(question.item_a, question.item_b, question.similarity)
    return RelationTypeAnswer(
        item_a=ItemSummary.of(engine.item(question.item_a)),
        item_b=ItemSummary.of(engine.item(question.item_b)),
        similarity=question.similarity,
        took_ms=_milliseconds_since(start),
        relations=[
            RankedRelation(rank=rank, score=scored.score, relation=RelationSummary.of(scored.relation))
            for rank, scored in enumerate(scores, start=1)
        ],
    )


@router.post(
    "/validity", summary="Does this relation hold?", responses=problems(400, 404, 413, 415, 422, 503)
)
async def validity(question: ValidityRequest, engine: ReadyEngine) -> ValidityAnswer:
    """Say how surely a relation holds between two items; the order of the two does not matter."""
    start = perf_counter()
    verdict = engine.validity(question.item_a, question.item_b, question.relation)
    return ValidityAnswer(
        item_a=ItemSummary.of(engine.item(question.item_a)),
        item_b=ItemSummary.of(engine.item(question.item_b)),
        relation=RelationSummary.of(engine.relation(question.relation)),
        probability=verdict.probability,
        valid=verdict.valid,
        threshold=verdict.threshold,
        took_ms=_milliseconds_since(start),
    )


async def _answer(engine: Engine, search: Callable[P, T], *asked: P.args, **more: P.kwargs) -> T:
    """Search on the loop while that is quicker than to change threads, and in a thread from there on."""
    if engine.quick:
        return search(*asked, **more)
    return await to_thread.run_sync(partial(search, *asked, **more))


def _milliseconds_since(start: float) -> float:
    return round((perf_counter() - start) * 1000, 3)
