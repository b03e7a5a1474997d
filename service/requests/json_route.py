"""Routes that receive and return JSON: pydantic parses and validates the raw body, and the answer is sent as bytes.

FastAPI's default handler parses the body with `json`, validates the result, and repeats the input in validation errors.
It takes three times as long, and its error responses fail if the input contains NaN, 1e400 or a lone surrogate. FastAPI
treats a `JsonRoute` like any other route, so the OpenAPI document is generated from its signature.
"""

import asyncio
from base64 import b64encode
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar, get_type_hints

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
from service.http.route_rules import SCOPE_CHARGE
from service.lifecycle.engine_holder import EngineHolder
from service.schemas.fields import Picture
from service.schemas.fields import Request as Body
from service.settings import ServeConfig

Asked = TypeVar("Asked", bound=BaseModel)

THREADED_BODY_BYTES = 32_768
"""Size in bytes above which a body is parsed in a thread, not on the event loop."""

BYTES_PER_COST = 65_536
"""Bytes of a body that are charged like one request. All long bodies in progress may have about 64 MB."""

MULTIPART = "multipart/form-data"

MAX_BUILT_ERRORS = 1_000
"""Maximum number of errors that are built for a body. Building 75,000 takes 80 ms, and holds up all threads."""

MAX_REPORTED_ERRORS = 100
"""Maximum number of errors reported per body. A body can have many, because each unknown field is an error."""


class Sent(NamedTuple):
    """Body of a request: JSON, and the picture if one was uploaded as a file."""

    json: bytes
    picture: bytes | None = None

    @property
    def size(self) -> int:
        """Size in bytes."""
        return len(self.json) + len(self.picture or b"")


class JsonRoute(APIRoute):
    """A route whose function receives arguments by type: the parsed body, the engine, and optionally the request.

    The body parameter is a pydantic model. `Engine` is the current engine, held until the function returns. `Request`
    is the HTTP request. Path parameters are passed by name. The function returns a model, the bytes of the JSON answer,
    or a complete response.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the request handler of the route. FastAPI calls this once per route."""
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
            holder: EngineHolder = request.scope["state"]["engine_holder"]
            try:
                with _long_body(request, holder) as counted:
                    sent = await _sent(request, uploads)
                    if sent.size > THREADED_BODY_BYTES:
                        asked = await asyncio.to_thread(_asked, model, sent)
                    else:
                        asked = _asked(model, sent)
                    with holder.held() as opened, opened.work_bound.working(asked.cost, counted):
                        # Charged last: a request that is refused for another reason is free to be sent again.
                        cost = asked.cost + sent.size // BYTES_PER_COST
                        if cost > 1 and SCOPE_CHARGE in request.scope:
                            request.scope[SCOPE_CHARGE](cost)
                        arguments = {**found, question: asked, engine: opened}
                        if request_name is not None:
                            arguments[request_name] = request
                        answer = await endpoint(**arguments)
            except RcmlError as error:
                # The error is not left to the application's handler. Propagating it would cost more than most
                # answers, and an overloaded server must reject requests cheaply.
                return error_response(request, error)
            if isinstance(answer, Response):
                return answer
            if isinstance(answer, BaseModel):
                answer = answer.__pydantic_serializer__.to_json(answer)
            return Response(answer, media_type="application/json")

        return handle


def _parameter(name: str, kind: TypeAdapter[str], value: str) -> str:
    """Validate a path parameter.

    Raises:
        RequestValidationError: The value is invalid.
    """
    try:
        return kind.validate_python(value)
    except ValidationError as refused:
        raise RequestValidationError(
            [{**error, "loc": ("path", name)} for error in refused.errors(include_url=False)]
        ) from None


def read(model: type[Asked], body: bytes) -> Asked:
    """Parse a body as a model. A byte order mark of UTF-8, as Notepad and PowerShell write it, is ignored.

    Raises:
        RequestValidationError: The body is not valid JSON in UTF-8 (RFC 8259, 8.1), or is invalid for the model.
    """
    body = body.removeprefix(BOM_UTF8)
    if body.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise RequestValidationError([_not_json("it is encoded in UTF-16. Send it in UTF-8")])
    if not body:
        raise RequestValidationError([{"type": "missing", "loc": ("body",), "msg": "", "input": None}])
    try:
        return model.model_validate_json(body)
    except ValidationError as refused:
        raise RequestValidationError([_in_body(error) for error in _errors(model, body, refused)]) from None


def _errors(model: type[BaseModel], body: bytes, refused: ValidationError) -> list[ErrorDetails]:
    """Return the first errors of a body. If it has too many to build, return those of its first unknown fields."""
    count = refused.error_count()
    if count <= MAX_BUILT_ERRORS:
        return refused.errors(include_url=False)[:MAX_REPORTED_ERRORS]
    fields = from_json(body)
    unknown = [name for name in fields if name not in model.model_fields] if isinstance(fields, dict) else []
    if unknown:
        return [
            {"type": "extra_forbidden", "loc": (name,), "msg": "", "input": fields[name]}
            for name in unknown[:MAX_REPORTED_ERRORS]
        ]
    told = {"remedy": "Send only the fields and values that GET /docs lists."}
    return [
        {
            "type": "too_many_errors",
            "loc": (),
            "msg": f"The body has {count:,} errors, too many to list.",
            "input": {},
            "ctx": told,
        }
    ]


def _in_body(error: ErrorDetails) -> InitErrorDetails | dict[str, Any]:
    return {**error, "loc": ("body", *error["loc"])}


@contextmanager
def _long_body(request: Request, holder: EngineHolder) -> Iterator[int]:
    """Count a long body as a large request within the context, before any of it is read.

    A body of unknown length counts as the longest that is allowed.

    Yields:
        The cost that is counted.

    Raises:
        NotReadyError: The body is long and no engine is open.
        TooCostlyError: Other large requests are in progress.
    """
    length = _header(request, b"content-length")
    if length.isdecimal():
        size = int(length)
    elif _header(request, b"transfer-encoding"):
        config: ServeConfig = request.scope["state"]["config"]
        size = config.max_upload_bytes if _media_type(request) == MULTIPART else config.max_body_bytes
    else:
        size = 0
    if size < BYTES_PER_COST:
        yield 0
        return
    with holder.engine.work_bound.working(size // BYTES_PER_COST) as counted:
        yield counted


def _header(request: Request, name: bytes) -> str:
    """Return a header field, or an empty string; `Request.headers` would take several times as long."""
    return next((value for field, value in request.scope["headers"] if field == name), b"").decode("latin-1")


def _media_type(request: Request) -> str:
    return _header(request, b"content-type").partition(";")[0].strip().lower()


async def _sent(request: Request, part: str | None) -> Sent:
    """Return the body of a request. A multipart body consists of a JSON part named `part` and a picture.

    Raises:
        HTTPException: The Content-Type is not JSON, which is the case for curl by default.
    """
    kind = _media_type(request)
    if kind == "application/json" or kind.endswith("+json"):
        return Sent(await _whole(request))
    if part is not None and kind == MULTIPART:
        return await _uploaded(request, part)
    body = await request.body()
    if body:
        sent = f"its Content-Type is {kind[:80]}" if kind else "the request has no Content-Type"
        raise HTTPException(
            415, f"The body must be JSON, but {sent}. Send it with Content-Type: application/json."
        )
    return Sent(body)


async def _whole(request: Request) -> bytes:
    """Return the whole body. Most bodies arrive in one piece, which is returned without a copy."""
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


async def _uploaded(request: Request, part: str) -> Sent:
    """Read the JSON part named `part` and the file from the part `picture`.

    Raises:
        HTTPException: One of the two parts is missing, or the file is empty.
    """
    async with request.form(max_files=1, max_fields=1) as form:
        question, picture = form.get(part), form.get("picture")
        if not isinstance(question, str) or not isinstance(picture, UploadFile):
            raise HTTPException(
                400,
                f"A multipart body must have two parts: {part} (JSON) and picture (a file). Send both.",
            )
        content = await picture.read()
        if not content:
            raise HTTPException(400, "The file in the part picture is empty. Send a JPEG, PNG or WebP file.")
        return Sent(question.encode(errors="replace"), content)


def _asked(model: type[Asked], sent: Sent) -> Asked:
    """Parse a body as a model. An uploaded picture replaces the field `picture` of the JSON.

    Raises:
        RequestValidationError: See `read`.
    """
    if sent.picture is None:
        return read(model, sent.json)
    # The first byte stands for the picture, as validation asks only whether there is one. In Base64, 12 MB would hold
    # the interpreter for 0.1 s.
    asked = read(model, _with_picture(sent.json, sent.picture[:1]))
    return asked.model_copy(update={"picture": Picture.model_construct(base64=sent.picture)})


def _with_picture(question: bytes, content: bytes) -> bytes:
    """Insert a picture into the JSON of a request.

    Raises:
        RequestValidationError: The question is not JSON.
    """
    try:
        fields = from_json(question.removeprefix(BOM_UTF8))
    except ValueError as error:
        raise RequestValidationError([_not_json(str(error))]) from None
    if not isinstance(fields, dict):
        return question
    # NaN and Infinity are kept, so that validation rejects them with the name of their field.
    return to_json({**fields, "picture": {"base64": b64encode(content).decode()}}, inf_nan_mode="constants")


def _not_json(reason: str) -> dict[str, Any]:
    return {"type": "json_invalid", "loc": ("body",), "msg": "", "input": {}, "ctx": {"error": reason}}
