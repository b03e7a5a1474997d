"""The page at `/`: a person asks by clicking what programs ask by the API. Files under `static/explorer`."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

from service.http.browser_policy import page_policy

_PAGE_FILE = Path(__file__).parent.parent / "static" / "explorer" / "index.html"

router = APIRouter(include_in_schema=False)

# Pictures that a key was needed for are shown from memory: `blob:`.
_HEADERS = {"Cache-Control": "no-cache", "Content-Security-Policy": page_policy(img_src="blob:")}


@router.get("/")
async def explorer() -> FileResponse:
    """Show the explorer."""
    return FileResponse(_PAGE_FILE, headers=_HEADERS)
