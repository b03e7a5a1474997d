"""Whether the process lives, and whether it can answer: for orchestrators and load balancers."""

from fastapi import APIRouter

from ..loading import ReadyEngine
from ..openapi import problems
from ..schemas import Live, Ready

router = APIRouter(tags=["health"])


@router.get("/livez", summary="Does the process live?")
async def livez() -> Live:
    """Answer as soon as the process listens, whatever the index does."""
    return Live()


@router.get("/readyz", summary="Can it answer?", responses=problems(503))
async def readyz(engine: ReadyEngine) -> Ready:
    """Answer 200 once the index and the network are open, and 503 until then."""
    index = engine.index
    return Ready(
        items=len(index),
        relations=len(index.relations),
        device=engine.device,
        index=index.digest,
        checkpoint=index.checkpoint.manifest.digest,
    )
