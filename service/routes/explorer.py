"""Explorer page at `/`, a browser interface to the API. Its files are under `static/explorer`."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

from service.http.browser_policy import page_policy

_PAGE_FILE = Path(__file__).parent.parent / "static" / "explorer" / "index.html"

router = APIRouter(include_in_schema=False)

# A script fetches the pictures that require an API key, and the page shows them from memory (`blob:`).
_HEADERS = {"Cache-Control": "no-cache", "Content-Security-Policy": page_policy(img_src="blob:")}


@router.get("/")
async def explorer() -> FileResponse:
    """Serve the explorer page."""
    return FileResponse(_PAGE_FILE, headers=_HEADERS)
