"""The API's documentation: `/docs` in a browser, `/openapi.json` for programs. Neither needs the internet.

FastAPI's own page loads Swagger UI from elsewhere; ours is the copy under `static/swagger-ui`, version 5.35.0
of the npm package swagger-ui-dist. All addresses are relative, so that a proxy may put a prefix before them.
"""

import re
from base64 import b64encode
from hashlib import sha256
from typing import Any

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse

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
        # Without this, Swagger UI asks a server of its makers whether the document is valid.
        swagger_ui_parameters={"validatorUrl": None, "defaultModelsExpandDepth": -1, "tryItOutEnabled": True},
    ).body
)
[_SCRIPT] = re.findall(rb"<script>(.*?)</script>", _PAGE, re.DOTALL)
_HEADERS = {
    # The page's own script is allowed by its hash; Swagger UI itself writes styles and shows pictures of its own.
    "Content-Security-Policy": page_policy(
        script_src=f"'sha256-{b64encode(sha256(_SCRIPT).digest()).decode()}'",
        style_src="'unsafe-inline'",
        img_src="data: blob:",
    )
}


@router.get("/docs")
async def docs() -> HTMLResponse:
    """Show the API in Swagger UI."""
    return HTMLResponse(_PAGE, headers=_HEADERS)


@router.get("/openapi.json")
async def openapi(request: Request) -> JSONResponse:
    """Describe the API; once the index is open, with examples from its own catalogue, which strangers do not see."""
    holder: EngineHolder = request.state.engine_holder
    described: dict[str, Any] = document(request.app)
    if holder.ready and not is_stranger(request.scope):
        with holder.held() as engine:
            described = await engine.run_in_thread(with_examples, described, engine.index)
    return JSONResponse(described)
