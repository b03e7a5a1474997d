"""Whether the process lives, whether it can answer, and what exactly it is: for orchestrators and operators.

Liveness says that the event loop turns: whoever restarts what is not alive must not be misled by a slow disk.
Readiness says that answers will come: it fails while the index is opened, while the server stops, and as long as
a worker is stuck.
"""

from fastapi import APIRouter, Request

from service.engine.info import info_of
from service.http.openapi import problems
from service.lifecycle.app_state import FitEngine, ReadyEngine
from service.schemas.health import Live, Ready
from service.schemas.info import Info

router = APIRouter(tags=["health"])


@router.get("/livez", summary="Does the process live?")
async def livez() -> Live:
    """Answer as soon as the process listens, whatever the index does."""
    return Live()


@router.get("/readyz", summary="Can it answer?", responses=problems(503))
async def readyz(engine: FitEngine) -> Ready:
    """Answer 200 while questions can be answered, and 503 with the reason while they cannot."""
    index = engine.index
    return Ready(
        items=len(index),
        relations=len(index.relations),
        device=engine.device,
        index=index.digest,
        checkpoint=index.checkpoint.manifest.digest,
    )


@router.get("/info", summary="What exactly answers?", responses=problems(503))
async def info(engine: ReadyEngine, request: Request) -> Info:
    """Give the versions and digests that an answer came from, even while a worker is stuck."""
    return info_of(engine, request.state.config, request.state.started)
