"""Endpoints that list relations, add free-text relations to the index and delete added relations."""

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response

from indexes.live.snapshot import Snapshot
from indexes.storage.relation_table import IndexedRelation
from model.item_limits import MAX_NAME_CHARACTERS
from model.records import Relation
from service.engine.engine import Engine
from service.http.openapi import problems
from service.lifecycle.app_state import ReadyEngine
from service.lifecycle.relation_jobs import RelationJob, RelationJobs
from service.requests.json_route import JsonRoute
from service.schemas.fields import ItemSummary, RelationSummary
from service.schemas.relations import MeasuredQuality, NewRelation, RelationDetail, RelationList, SamplePair

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
    snapshot = engine.index.snapshot
    return RelationList(
        in_words=engine.takes_free_text,
        report=None if engine.quality is None else engine.quality.digest,
        relations=await engine.run_in_thread(_indexed, engine, snapshot, snapshot.generation.relations),
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
    job = jobs.add(engine, Relation(asked.relation_id, asked.description, name=asked.name))
    content = _pending(job).model_dump_json()
    location = f"/relations/{quote(asked.relation_id, safe='')}"
    return Response(content, 202, {"Location": location}, "application/json")


@router.get("/relations/{relation_id:path}", summary="Get a relation", responses=problems(404, 422, 503))
async def get_relation(relation_id: RelationId, engine: ReadyEngine, request: Request) -> RelationDetail:
    """Return a relation of the index, or the progress of a relation that is being added."""
    jobs: RelationJobs = request.state.relation_jobs
    snapshot = engine.index.snapshot
    job = jobs.find(relation_id)
    if job is not None and relation_id not in snapshot.generation.positions:
        return _pending(job)
    [found] = await engine.run_in_thread(_indexed, engine, snapshot, [snapshot.relation(relation_id)])
    return found


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


def _indexed(
    engine: Engine, snapshot: Snapshot, relations: Sequence[IndexedRelation]
) -> list[RelationDetail]:
    """Return the details of relations. Must be called in a thread, because it reads items from the disk."""
    return [
        RelationDetail(
            **RelationSummary.of(known.relation).model_dump(),
            domain=known.relation.domain,
            origin="trained" if known.free_text is None else "added",
            intra=known.relation.intra,
            pairs=known.pairs,
            paired_items=known.paired_items,
            users=known.users,
            sample_pairs=_sample_pairs(known, snapshot, engine.root_path),
            quality=_quality(engine, known.relation_id),
            state="indexed",
            done=0,
            total=0,
            reason=None,
        )
        for known in relations
    ]


def _sample_pairs(known: IndexedRelation, snapshot: Snapshot, root_path: str) -> list[SamplePair]:
    """Return the sample pairs of which both items still exist."""
    found = []
    for pair in known.sample_pairs:
        rows = [row for row in map(snapshot.find, (pair.item_a, pair.item_b)) if row is not None]
        if len(rows) == 2:
            item_a, item_b = (ItemSummary.of(item, root_path) for item in snapshot.at(rows))
            found.append(SamplePair(item_a=item_a, item_b=item_b, support=pair.support))
    return found


def _quality(engine: Engine, relation_id: str) -> MeasuredQuality | None:
    quality = engine.quality_of(relation_id)
    if quality is None:
        return None
    return MeasuredQuality(**quality.model_dump(exclude={"relation_id", "description"}))


def _pending(job: RelationJob) -> RelationDetail:
    """Return the details of a relation that is being added or that failed."""
    return RelationDetail(
        **RelationSummary.of(job.relation).model_dump(),
        domain=job.relation.domain,
        origin="added",
        intra=False,
        pairs=None,
        paired_items=None,
        users=None,
        sample_pairs=[],
        quality=None,
        state=job.state,
        done=job.done,
        total=job.total,
        reason=job.reason,
    )


router.include_router(_json)
