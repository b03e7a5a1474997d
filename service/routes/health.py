"""Liveness, readiness and version endpoints, for orchestrators and operators.

Liveness only requires a running event loop, so that a slow disk does not make an orchestrator restart the process.
Readiness means that requests are answered. It fails while the index is being opened, while the server is stopping,
while a worker is stuck, while the folder of the index is missing, and while a server that stores the vectors does not
answer. A damaged picture is only a warning, because all other requests are answered, and because the same picture may
be damaged in all replicas.
"""

from collections.abc import Sequence
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from service.engine.info import info_of
from service.http.openapi import problems
from service.lifecycle.app_state import FitEngine, ReadyEngine
from service.problems.errors import NotReadyError
from service.schemas.health import Live, Ready
from service.schemas.info import Info

NAMED_PICTURES = 3
"""Maximum number of damaged pictures that the readiness check names."""

router = APIRouter(tags=["health"])


@router.get("/livez", summary="Check liveness")
async def livez() -> Live:
    """Return 200 if the process accepts connections, regardless of the state of the index."""
    return Live()


@router.get("/readyz", summary="Check readiness", responses=problems(503))
async def readyz(engine: FitEngine) -> Ready:
    """Return 200 if the service can answer requests, otherwise 503 with the reason."""
    index = engine.index
    await run_in_threadpool(_check_folder, index.snapshot.generation.path)
    await run_in_threadpool(index.check)
    return Ready(
        items=len(index),
        relations=len(index.relations),
        device=engine.device,
        index=index.digest,
        checkpoint=index.checkpoint.manifest.digest,
        warnings=_warnings(index.pictures.damaged),
    )


@router.get("/info", summary="Get version information", responses=problems(503))
async def info(engine: ReadyEngine, request: Request) -> Info:
    """Return the software versions and artifact digests of the server, even while a worker is stuck."""
    return info_of(engine, request.state.config, request.state.started)


def _check_folder(generation: Path) -> None:
    """Check that the files of the index are still there. Must be called in a thread, because a volume may not answer.

    Raises:
        NotReadyError: The folder of the generation is missing.
    """
    if not generation.is_dir():
        raise NotReadyError(
            f"The folder {generation.name} of the index has disappeared. Restore it or its volume."
        )


def _warnings(damaged: Sequence[str]) -> list[str]:
    """Return the warning about damaged pictures, if there are any; only the first are named."""
    if not damaged:
        return []
    named = ", ".join(damaged[:NAMED_PICTURES]) + (", ..." if len(damaged) > NAMED_PICTURES else "")
    return [f"{len(damaged)} stored pictures are damaged: {named}. Check the index with `rcml index verify`."]
