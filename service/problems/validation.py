"""Rejections of bodies, paths and queries that pydantic found invalid: the field, the value and the remedy."""

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
"""Errors listed in one problem: a body of a thousand unknown fields gets no longer answer than this."""


def validation_rejection(
    error: RequestValidationError,
    body: type[BaseModel] | None,
    name: str = "body",
    parameters: Mapping[str, Any] = MappingProxyType({}),
) -> Rejection:
    """Word what is wrong with a `body`, which its sender calls `name`, or with `parameters` of the path or query."""
    errors = error.errors()
    if errors[0]["type"] == "json_invalid":
        return Rejection(NOT_JSON, f"The {name} is not JSON: {errors[0]['ctx']['error'][:ECHO_LENGTH]}.")
    # A default that depends on other fields is not made when one of those is wrong: no fault of its own.
    faults = [one for one in errors if one["type"] != "default_factory_not_called"]
    problems: dict[str | None, FieldProblem] = {}
    for fault in faults[:MAX_FIELD_PROBLEMS]:
        problem = _field_problem(fault, body, name, parameters)
        # A value that may be of several types has an error for each, in the order of declaration: keep the first.
        problems.setdefault(problem.pointer or problem.parameter, problem)
    detail = " ".join(f"{problem.message} {problem.remedy}" for problem in problems.values())
    return Rejection(INVALID_REQUEST, detail, [*problems.values()])


def _field_problem(
    error: ErrorDetails, model: type[BaseModel] | None, body: str, parameters: Mapping[str, Any]
) -> FieldProblem:
    """Word one of pydantic's errors; its location is `body`, `query` or `path`, then the way to the field."""
    where, *location = error["loc"]
    value = None if error["type"] == "missing" else quoted(error["input"])
    if where != "body":
        name = str(location[0])
        worded = field_message(error, FieldInfo.from_annotation(parameters[name]), name, "send")
        return FieldProblem(parameter=name, value=value, message=worded.message, remedy=worded.remedy)
    assert model is not None, "a route that takes a body has a model of it"
    found = place(model, location)
    name = ".".join(_shortened(part) for part in found.path) or f"The {body}"
    worded = field_message(error, found.field, name, "send")
    pointer = "#" + "".join(f"/{_escaped(part)}" for part in found.path)
    return FieldProblem(pointer=pointer, value=value, message=worded.message, remedy=worded.remedy)


def _shortened(part: str | int) -> str:
    """Cut one step of the way to a field; an unknown field's name may be of any length."""
    step = str(part)
    return step[:ECHO_LENGTH] + "…" * (len(step) > ECHO_LENGTH)


def _escaped(part: str | int) -> str:
    """Escape one step of a JSON pointer (RFC 6901) in a URI fragment."""
    return quote(str(part)[:ECHO_LENGTH].replace("~", "~0").replace("/", "~1"))
