"""The page at `/`: a person asks by clicking what programs ask by the API. Files under `static/explorer`."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

PAGE = Path(__file__).parent.parent / "static" / "explorer" / "index.html"

router = APIRouter(include_in_schema=False)


@router.get("/")
async def explorer() -> FileResponse:
    """Show the explorer."""
    return FileResponse(PAGE, headers={"Cache-Control": "no-cache"})
