"""Endpoints that list relations, add free-text relations to the index and delete added relations."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from indexes.storage.relation_table import IndexedRelation
from model.checkpoint.relation_quality import RelationQuality
from model.item_limits import MAX_NAME_CHARACTERS
from model.records import Relation
from service.engine.engine import Engine
from service.http.openapi import problems
from service.lifecycle.app_state import ReadyEngine
from service.lifecycle.relation_jobs import RelationJob, RelationJobs
from service.requests.json_route import JsonRoute
from service.schemas.relations import MeasuredQuality, NewRelation, RelationDetail, RelationList

router = APIRouter(tags=["catalogue"])
_json = APIRouter(route_class=JsonRoute)

RelationId = Annotated[
    str,
    Path(
        min_length=1,
        max_length=MAX_NAME_CHARACTERS,
        description="ID of a relation; it may contain any character",
    ),
]

_LOCATION = {
    "Location": {"description": "path that reports progress", "schema": {"type": "string", "format": "uri-reference"}}
}  # fmt: skip


@router.get("/relations", summary="List relations", responses=problems(503))
async def list_relations(engine: ReadyEngine, request: Request) -> RelationList:
    """Return all relations with their statistics and measured quality, and the relations that are being added."""
    jobs: RelationJobs = request.state.relation_jobs
    known = engine.index.snapshot.generation.relations
    return RelationList(
        in_words=engine.takes_free_text,
        report=None if engine.quality is None else engine.quality.digest,
        relations=[_indexed(one, engine.quality_of(one.relation_id)) for one in known],
        pending=[_pending(one) for one in jobs.pending],
    )


@_json.post(
    "/relations",
    summary="Add a free-text relation",
    status_code=202,
    response_model=RelationDetail,
    responses={202: {"headers": _LOCATION}, **problems(400, 413, 415, 422, 429, 503)},
)
async def add_relation(asked: NewRelation, engine: ReadyEngine, request: Request) -> Response:
    """Start a background job that adds a free-text relation to the index.

    The job embeds all items under the relation while the server continues to answer requests. `Location` is the path
    that reports the progress. Until the relation is indexed, requests can send its description instead of its ID. The
    index must have been built with `--token-store`.
    """
    jobs: RelationJobs = request.state.relation_jobs
    job = jobs.add(engine, Relation(asked.relation_id, asked.description))
    content = _pending(job).model_dump_json()
    location = f"/relations/{quote(asked.relation_id, safe='')}"
    return Response(content, 202, {"Location": location}, "application/json")


@router.get("/relations/{relation_id:path}", summary="Get a relation", responses=problems(404, 422, 503))
async def get_relation(relation_id: RelationId, engine: ReadyEngine, request: Request) -> RelationDetail:
    """Return a relation of the index, or the progress of a relation that is being added."""
    jobs: RelationJobs = request.state.relation_jobs
    return _detail(relation_id, engine, jobs)


@router.delete(
    "/relations/{relation_id:path}",
    summary="Delete an added relation",
    status_code=204,
    responses=problems(404, 409, 422, 503),
)
async def delete_relation(relation_id: RelationId, engine: ReadyEngine, request: Request) -> None:
    """Delete an added relation from the index, or cancel its background job. Trained relations cannot be deleted."""
    jobs: RelationJobs = request.state.relation_jobs
    await jobs.remove(engine, relation_id)


def _detail(relation_id: str, engine: Engine, jobs: RelationJobs) -> RelationDetail:
    snapshot = engine.index.snapshot
    job = jobs.find(relation_id)
    if job is not None and relation_id not in snapshot.generation.positions:
        return _pending(job)
    return _indexed(snapshot.relation(relation_id), engine.quality_of(relation_id))


def _indexed(known: IndexedRelation, quality: RelationQuality | None) -> RelationDetail:
    """Return the details of a relation of the index."""
    return RelationDetail(
        relation_id=known.relation_id,
        description=known.relation.description,
        domain=known.relation.domain,
        origin="trained" if known.free_text is None else "added",
        intra=known.relation.intra,
        pairs=known.pairs,
        paired_items=known.paired_items,
        quality=None
        if quality is None
        else MeasuredQuality(**quality.model_dump(exclude={"relation_id", "description"})),
        state="indexed",
        done=0,
        total=0,
        reason=None,
    )


def _pending(job: RelationJob) -> RelationDetail:
    """Return the details of a relation that is being added or that failed."""
    return RelationDetail(
        relation_id=job.relation.relation_id,
        description=job.relation.description,
        domain=job.relation.domain,
        origin="added",
        intra=False,
        pairs=None,
        paired_items=None,
        quality=None,
        state=job.state,
        done=job.done,
        total=job.total,
        reason=job.reason,
    )


router.include_router(_json)
