"""A candidate compared with what is served, on questions as they come."""

from fastapi import APIRouter, Request

from service.http.openapi import problems
from service.lifecycle.app_state import ReadyEngine
from service.lifecycle.engine_swap import ArtifactNames
from service.lifecycle.shadow_run import Shadow
from service.requests.json_route import JsonRoute
from service.schemas.admin import ShadowRequest, ShadowState

router = APIRouter(tags=["operation"])
_json = APIRouter(route_class=JsonRoute)


@_json.post(
    "/admin/shadow",
    summary="Compare a candidate",
    responses=problems(400, 409, 413, 415, 422, 503),
)
async def begin(asked: ShadowRequest, engine: ReadyEngine, request: Request) -> ShadowState:
    """Open an index beside what answers, and put a share of the questions to it too.

    Nobody sees its answers: they are compared, and dropped. No answer waits for that.
    """
    shadow: Shadow = request.state.shadow
    return (await shadow.begin(ArtifactNames.of(asked), asked.share)).state


@router.get("/admin/shadow", summary="How does the candidate compare?", responses=problems(404, 503))
async def state(request: Request) -> ShadowState:
    """Give what would change: which items, by how much their scores, and what it takes."""
    shadow: Shadow = request.state.shadow
    return shadow.current.state


@router.delete(
    "/admin/shadow",
    summary="End the comparison",
    status_code=204,
    responses=problems(404, 503),
)
async def end(request: Request) -> None:
    """Close the candidate. POST /admin/reload with its name has it answer instead."""
    shadow: Shadow = request.state.shadow
    await shadow.end()


router.include_router(_json)
