"""The routes that take JSON and give JSON: read and checked by pydantic from the bytes, answered as bytes.

FastAPI's own way parses the body with `json`, checks what came of it, and answers a refusal by repeating what was sent:
NaN, 1e400 or a lone surrogate in it made that fail, and it takes three times as long. To FastAPI these are routes like
any other, so that the documentation is made from their signatures.
"""

import asyncio
from base64 import b64encode
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, get_type_hints

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, from_json, to_json
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from model.errors import RcmlError
from service.engine.engine import Engine
from service.http.problem_handlers import error_response
from service.lifecycle.engine_holder import EngineHolder
from service.schemas.fields import Request as Body

Asked = TypeVar("Asked", bound=BaseModel)

THREADED_BODY_BYTES = 32_768
"""Bytes of a body beyond which it is parsed in a thread, beside the event loop."""

MAX_REPORTED_ERRORS = 100
"""Errors of a body that are reported at most; a body of many unknown fields has very many."""


class JsonRoute(APIRoute):
    """A route whose function takes the body, a pydantic model, and what else it names by type.

    `Engine` is the one that is open, held until the answer is made; `Request` the request. What its path names, it may
    take by these names. The function returns a model, the bytes of the answer, or a whole response.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Make the handler of the route; called once."""
        hints = get_type_hints(self.endpoint)
        hints.pop("return", None)
        kinds: dict[type, str] = {kind: name for name, kind in hints.items()}
        model = next(kind for kind in kinds if issubclass(kind, Body))
        question, engine, request_name = kinds[model], kinds[Engine], kinds.get(Request)
        endpoint, uploads = self.endpoint, model.part if "picture" in model.model_fields else None
        annotated = get_type_hints(self.endpoint, include_extras=True)
        path = {name: TypeAdapter[str](annotated[name]) for name in self.param_convertors}

        async def handle(request: Request) -> Response:
            found = {name: _parameter(name, kind, request.path_params[name]) for name, kind in path.items()}
            body = await _body(request, uploads)
            if len(body) > THREADED_BODY_BYTES:
                asked = await asyncio.to_thread(read, model, body)
            else:
                asked = read(model, body)
            holder: EngineHolder = request.scope["state"]["engine_holder"]
            try:
                with holder.held() as opened:
                    arguments = {**found, question: asked, engine: opened}
                    if request_name is not None:
                        arguments[request_name] = request
                    answer = await endpoint(**arguments)
            except RcmlError as error:
                # Not left to the application's handler: on its way there it would cost more than most answers, and
                # a server that refuses what it has no time for must not take time for that.
                return error_response(request, error)
            if isinstance(answer, Response):
                return answer
            if isinstance(answer, BaseModel):
                answer = answer.__pydantic_serializer__.to_json(answer)
            return Response(answer, media_type="application/json")

        return handle


def _parameter(name: str, kind: TypeAdapter[str], value: str) -> str:
    """Check a parameter of the path.

    Raises:
        RequestValidationError: it is not what the route takes.
    """
    try:
        return kind.validate_python(value)
    except ValidationError as refused:
        raise RequestValidationError(
            [{**error, "loc": ("path", name)} for error in refused.errors(include_url=False)]
        ) from None


def read(model: type[Asked], body: bytes) -> Asked:
    """Parse the body as a model.

    Raises:
        RequestValidationError: it is not JSON, or not what the model takes.
    """
    if not body:
        raise RequestValidationError([{"type": "missing", "loc": ("body",), "msg": "", "input": None}])
    try:
        return model.model_validate_json(body)
    except ValidationError as refused:
        raise RequestValidationError(
            [_in_body(error) for error in refused.errors(include_url=False)[:MAX_REPORTED_ERRORS]]
        ) from None


def _in_body(error: ErrorDetails) -> InitErrorDetails | dict[str, Any]:
    return {**error, "loc": ("body", *error["loc"])}


async def _body(request: Request, part: str | None) -> bytes:
    """Read the JSON of a request; if it uploads a picture beside its `part`, with the picture in it.

    Raises:
        HTTPException: it does not say that it is JSON; curl says something else unless told.
    """
    kind = next((value for name, value in request.scope["headers"] if name == b"content-type"), b"").decode(
        "latin-1"
    )
    kind = kind.partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return await _whole(request)
    if part is not None and kind == "multipart/form-data":
        return await _uploaded(request, part)
    body = await request.body()
    if body:
        sent = f"{kind[:80]} was sent" if kind else "the request does not say what its body is"
        raise HTTPException(
            415, f"The body must be JSON; {sent}. Send it with Content-Type: application/json."
        )
    return body


async def _whole(request: Request) -> bytes:
    """Read the body, which mostly is one piece."""
    message = await request.receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        return body
    parts = []
    while message["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await request.receive()
    raise ClientDisconnect


async def _uploaded(request: Request, part: str) -> bytes:
    """Read the part of this name, which is JSON, and put the file of the part `picture` into it.

    Raises:
        HTTPException: the parts are not these.
    """
    async with request.form(max_files=1, max_fields=1) as form:
        question, picture = form.get(part), form.get("picture")
        if not isinstance(question, str) or not isinstance(picture, UploadFile):
            raise HTTPException(
                400,
                f"A multipart body has two parts: {part}, which is JSON, and picture, which is a file. Send both.",
            )
        content = await picture.read()
    return await asyncio.to_thread(_joined, question, content)


def _joined(question: str, content: bytes) -> bytes:
    try:
        fields = from_json(question)
    except ValueError as error:
        details = {
            "type": "json_invalid",
            "loc": ("body",),
            "msg": "",
            "input": {},
            "ctx": {"error": str(error)},
        }
        raise RequestValidationError([details]) from None
    if not isinstance(fields, dict):
        return question.encode(errors="replace")
    # NaN and Infinity stay as they are, and are refused by name.
    return to_json({**fields, "picture": {"base64": b64encode(content).decode()}}, inf_nan_mode="constants")
