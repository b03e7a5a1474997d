"""Another index, checkpoint or both in place of what is served, without a pause."""

from fastapi import APIRouter, Request

from service.http.openapi import problems
from service.lifecycle.app_state import ReadyEngine
from service.lifecycle.engine_swap import ArtifactNames, EngineLoader
from service.requests.json_route import JsonRoute
from service.schemas.admin import ReloadAnswer, ReloadRequest

router = APIRouter(tags=["operation"], route_class=JsonRoute)


@router.post(
    "/admin/reload",
    summary="Serve another index",
    responses=problems(400, 409, 413, 415, 422, 503),
)
async def reload(asked: ReloadRequest, engine: ReadyEngine, request: Request) -> ReloadAnswer:
    """Open an index and its checkpoint beside what answers, warm them, and have them answer from then on.

    Every request is answered by one of the two as a whole, and its `version` says by which. What cannot be opened
    leaves all as it is. Answers come when it is done.
    """
    loader: EngineLoader = request.state.engine_loader
    swap = await loader.swap(ArtifactNames.of(asked))
    return ReloadAnswer(before=swap.before, after=swap.after, seconds=swap.seconds)
