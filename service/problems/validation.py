"""Rejections of request bodies and parameters that fail validation: the field, the value and the remedy."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from service.schemas.problem import FieldProblem

from .field_messages import ECHO_LENGTH, field_message, place, quoted
from .kinds import INVALID_REQUEST, NOT_JSON
from .rejections import Rejection

MAX_FIELD_PROBLEMS = 20
"""Maximum number of errors in one problem, so that a body with a thousand unknown fields gets a short response."""


def validation_rejection(
    error: RequestValidationError,
    body: type[BaseModel] | None,
    name: str = "body",
    parameters: Mapping[str, Any] = MappingProxyType({}),
) -> Rejection:
    """Return the rejection for a validation error in a body or in `parameters` of the path or query.

    `body` is the pydantic model that the request body is parsed as. `name` is the term for the body in messages,
    such as "line".
    """
    errors = error.errors()
    if errors[0]["type"] == "json_invalid":
        return Rejection(
            NOT_JSON, f"The {name} is not valid JSON: {errors[0]['ctx']['error'][:ECHO_LENGTH]}."
        )
    # Pydantic also reports defaults that it skipped because of an error in another field. These are not errors.
    faults = [one for one in errors if one["type"] != "default_factory_not_called"]
    problems: dict[str | None, FieldProblem] = {}
    for fault in faults[:MAX_FIELD_PROBLEMS]:
        problem = _field_problem(fault, body, name, parameters)
        # Pydantic reports one error per type of a union, in the order of declaration. Only the first is kept.
        problems.setdefault(problem.pointer or problem.parameter, problem)
    detail = " ".join(f"{problem.message} {problem.remedy}" for problem in problems.values())
    return Rejection(INVALID_REQUEST, detail, [*problems.values()])


def _field_problem(
    error: ErrorDetails, model: type[BaseModel] | None, body: str, parameters: Mapping[str, Any]
) -> FieldProblem:
    """Convert a pydantic error, whose location starts with `body`, `query` or `path`, to a field problem."""
    where, *location = error["loc"]
    value = None if error["type"] == "missing" else quoted(error["input"])
    if where != "body":
        name = str(location[0])
        worded = field_message(error, FieldInfo.from_annotation(parameters[name]), name, "send")
        return FieldProblem(parameter=name, value=value, message=worded.message, remedy=worded.remedy)
    assert model is not None, "a route with a body must have a body model"
    found = place(model, location)
    name = ".".join(_shortened(part) for part in found.path) or f"The {body}"
    worded = field_message(error, found.field, name, "send")
    pointer = "#" + "".join(f"/{_escaped(part)}" for part in found.path)
    return FieldProblem(pointer=pointer, value=value, message=worded.message, remedy=worded.remedy)


def _shortened(part: str | int) -> str:
    """Shorten one part of a field's path, because the name of an unknown field can be arbitrarily long."""
    step = str(part)
    return step[:ECHO_LENGTH] + "…" * (len(step) > ECHO_LENGTH)


def _escaped(part: str | int) -> str:
    """Escape one part of a JSON pointer (RFC 6901) for use in a URI fragment."""
    return quote(str(part)[:ECHO_LENGTH].replace("~", "~0").replace("/", "~1"))
