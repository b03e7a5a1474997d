"""API documentation: Swagger UI at `/docs` and the OpenAPI document at `/openapi.json`. Both work offline.

FastAPI's default page loads Swagger UI from a CDN. This page loads the copy under `static/swagger-ui`, version 5.35.0
of the npm package swagger-ui-dist. All URLs are relative, so a reverse proxy can add a path prefix.
"""

import asyncio
import re
from base64 import b64encode
from dataclasses import dataclass
from gzip import compress
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
).replace(
    b"</head>",
    # The document is written and sent while the browser still compiles the script that reads it.
    b'<link rel="preload" href="openapi.json" as="fetch" crossorigin="anonymous">\n    </head>',
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


@dataclass(frozen=True)
class _Written:
    """OpenAPI document of one version of the index as JSON, and the same JSON compressed; `tag` is its entity tag."""

    version: str
    tag: str
    content: bytes
    compressed: bytes

    def response(self, request: Request) -> Response:
        """Return the form that the client accepts, or 304 if the client has it (RFC 9110, sections 8.8.3 and 12.5.3).

        The two forms have different bytes, so they have different strong entity tags.
        """
        zipped = _accepts_gzip(request.headers.get("accept-encoding", ""))
        tag = f'"{self.tag}-gzip"' if zipped else f'"{self.tag}"'
        headers = {"ETag": tag, "Vary": "Accept-Encoding", "Cache-Control": "no-cache"}
        known = [
            one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")
        ]
        if tag in known or "*" in known:
            return Response(status_code=304, headers=headers)
        if zipped:
            headers["Content-Encoding"] = "gzip"
        return Response(self.compressed if zipped else self.content, 200, headers, "application/json")


class _Documents:
    """Latest OpenAPI document with and without examples. Writing one takes tens of milliseconds."""

    def __init__(self) -> None:
        self._written: dict[bool, _Written] = {}
        self._turn = asyncio.Lock()

    async def read(self, request: Request, engine: Engine | None) -> _Written:
        """Return the document with examples from the index of `engine`, or without examples if it is None."""
        current = "" if engine is None else version(engine.index.snapshot)
        async with self._turn:
            written = self._written.get(engine is not None)
            if written is None or written.version != current:
                written = await asyncio.to_thread(_write, request, engine, current)
                self._written[engine is not None] = written
        return written


def _accepts_gzip(accepted: str) -> bool:
    """Return whether an Accept-Encoding header lists gzip, or `*`, with a quality above 0."""
    qualities: dict[str, bool] = {}
    for part in accepted.lower().split(","):
        coding, _, parameter = part.partition(";")
        quality = parameter.partition("=")[2].strip()
        qualities[coding.strip()] = quality.strip("0.") != "" if quality else True
    return qualities.get("gzip", qualities.get("*", False))


def _write(request: Request, engine: Engine | None, current: str) -> _Written:
    content = _content(request, engine)
    return _Written(current, sha256(content).hexdigest()[:32], content, compress(content, mtime=0))


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
    if not hasattr(state, "openapi_documents"):
        state.openapi_documents = _Documents()
    documents: _Documents = state.openapi_documents
    holder: EngineHolder = request.state.engine_holder
    if holder.ready and not is_stranger(request.scope):
        with holder.held() as engine:
            written = await documents.read(request, engine)
    else:
        written = await documents.read(request, None)
    return written.response(request)
