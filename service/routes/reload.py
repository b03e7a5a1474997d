"""Endpoint that swaps the served index, checkpoint or both without interrupting the service."""

from fastapi import APIRouter, Request

from service.http.openapi import problems
from service.lifecycle.app_state import ReadyEngine
from service.lifecycle.engine_swap import ArtifactNames, Swapper
from service.requests.json_route import JsonRoute
from service.schemas.admin import ReloadAnswer, ReloadRequest

router = APIRouter(tags=["operation"], route_class=JsonRoute)


@router.post(
    "/admin/reload",
    summary="Reload the index",
    responses=problems(400, 409, 413, 415, 422, 503),
)
async def reload(asked: ReloadRequest, engine: ReadyEngine, request: Request) -> ReloadAnswer:
    """Open an index and its checkpoint, warm them up, and replace the ones being served.

    If the new index cannot be opened, nothing changes. The response to this request is sent after the swap. Every other
    request is answered entirely from the old or from the new index, and `version` in its response shows which.
    """
    swapper: Swapper = request.state.swapper
    swap = await swapper.swap(ArtifactNames.of(asked))
    return ReloadAnswer(before=swap.before, after=swap.after, seconds=swap.seconds)
