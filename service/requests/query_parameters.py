"""Check of query parameters: each may be sent once, because of several values all but one would be ignored."""

from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError


async def each_once(request: Request) -> None:
    """Reject a request that repeats a query parameter of its route. Used as a FastAPI dependency.

    Raises:
        RequestValidationError: a parameter is repeated.
    """
    route: Any = request.scope["route"]
    faults = []
    for parameter in route.dependant.query_params:
        values = request.query_params.getlist(parameter.alias)
        if len(values) > 1:
            faults.append(
                {
                    "type": "repeated",
                    "loc": ("query", parameter.alias),
                    "msg": f"{parameter.alias} was sent {len(values)} times.",
                    "input": values,
                    "ctx": {"remedy": f"Send {parameter.alias} once."},
                }
            )
    if faults:
        raise RequestValidationError(faults)
