"""API documentation: Swagger UI at `/docs` and the OpenAPI document at `/openapi.json`. Both work offline.

FastAPI's default page loads Swagger UI from a CDN. This page loads the copy under `static/swagger-ui`, version 5.35.0
of the npm package swagger-ui-dist. All URLs are relative, so a reverse proxy can add a path prefix.
"""

import asyncio
import re
from base64 import b64encode
from hashlib import sha256
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response

from service.engine.engine import Engine
from service.engine.item_json import version
from service.http.browser_policy import page_policy
from service.http.openapi import document, with_examples
from service.http.route_rules import is_stranger
from service.lifecycle.engine_holder import EngineHolder

router = APIRouter(include_in_schema=False)

_PAGE = bytes(
    get_swagger_ui_html(
        openapi_url="openapi.json",
        title="rcml",
        swagger_js_url="static/swagger-ui/swagger-ui-bundle.js",
        swagger_css_url="static/swagger-ui/swagger-ui.css",
        swagger_favicon_url="static/swagger-ui/favicon-32x32.png",
        # By default, Swagger UI asks its vendor's server to validate the document.
        swagger_ui_parameters={"validatorUrl": None, "defaultModelsExpandDepth": -1, "tryItOutEnabled": True},
    ).body
)
[_SCRIPT] = re.findall(rb"<script>(.*?)</script>", _PAGE, re.DOTALL)
_HEADERS = {
    # The inline script of the page is allowed by its hash. Swagger UI adds inline styles, and images with `data:` and
    # `blob:` URLs.
    "Content-Security-Policy": page_policy(
        script_src=f"'sha256-{b64encode(sha256(_SCRIPT).digest()).decode()}'",
        style_src="'unsafe-inline'",
        img_src="data: blob:",
    )
}


@router.get("/docs")
async def docs() -> HTMLResponse:
    """Serve the Swagger UI page."""
    return HTMLResponse(_PAGE, headers=_HEADERS)


class _Written:
    """Latest OpenAPI document as JSON, with and without examples. Writing one takes tens of milliseconds."""

    def __init__(self) -> None:
        self._written: dict[bool, tuple[str, bytes]] = {}
        self._turn = asyncio.Lock()

    async def read(self, request: Request, engine: Engine | None) -> bytes:
        """Return the document with examples from the index of `engine`, or without examples if it is None."""
        current = "" if engine is None else version(engine.index.snapshot)
        async with self._turn:
            written = self._written.get(engine is not None)
            if written is None or written[0] != current:
                content = await asyncio.to_thread(_content, request, engine)
                self._written[engine is not None] = written = current, content
        return written[1]


def _content(request: Request, engine: Engine | None) -> bytes:
    described: dict[str, Any] = document(request.app)
    if prefix := request.state.config.root_path:
        described = {**described, "servers": [{"url": prefix}]}
    if engine is not None:
        described = with_examples(described, engine.index)
    return orjson.dumps(described)


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """Serve the OpenAPI document.

    Once the index is open, the document includes examples from its catalogue. They are omitted if the server requires
    an API key and the request has no valid one.
    """
    state = request.app.state
    if not hasattr(state, "openapi_written"):
        state.openapi_written = _Written()
    written: _Written = state.openapi_written
    holder: EngineHolder = request.state.engine_holder
    if holder.ready and not is_stranger(request.scope):
        with holder.held() as engine:
            content = await written.read(request, engine)
    else:
        content = await written.read(request, None)
    return Response(content, media_type="application/json")
