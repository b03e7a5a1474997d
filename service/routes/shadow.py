"""Endpoints for shadow runs, which compare a candidate index with the live index on real requests."""

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
    summary="Start a shadow run",
    responses=problems(400, 409, 413, 415, 422, 503),
)
async def begin(asked: ShadowRequest, engine: ReadyEngine, request: Request) -> ShadowState:
    """Open a candidate index, and send it a share of the live requests.

    Clients never receive the answers of the candidate. They are compared with the live answers and then discarded,
    without delaying any response.
    """
    shadow: Shadow = request.state.shadow
    return (await shadow.begin(ArtifactNames.of(asked), asked.share)).state


@router.get("/admin/shadow", summary="Get the state of the shadow run", responses=problems(404, 503))
async def state(request: Request) -> ShadowState:
    """Return how the candidate differs from the live index in results, scores and latency."""
    shadow: Shadow = request.state.shadow
    return shadow.current.state


@router.delete(
    "/admin/shadow",
    summary="End the shadow run",
    status_code=204,
    responses=problems(404, 503),
)
async def end(request: Request) -> None:
    """End the shadow run and close the candidate. To serve the candidate, send its name to POST /admin/reload."""
    shadow: Shadow = request.state.shadow
    await shadow.end()


router.include_router(_json)
