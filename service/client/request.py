"""One call to the service: what it sends, how its response is parsed, and whether it may be repeated."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Generic, TypeVar

import httpx
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from service.schemas.problem import Problem

from .errors import UnexpectedAnswer, error_of

T = TypeVar("T")
Answer = TypeVar("Answer", bound=BaseModel)

REQUEST_ID = "X-Request-Id"

SLOW_CALL_TIMEOUT_S = 600.0
"""Timeout and deadline of slow calls in seconds, unless the client's own limits are longer."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request whose response is parsed as a T.

    A `repeatable` call has the same effect whether it is sent once or twice. A `slow` call may take minutes.
    """

    method: str
    path: str
    read: Callable[[bytes], T]
    content: bytes | None = field(default=None, repr=False)
    params: Mapping[str, int | str] | None = None
    media_type: str = "application/json"
    repeatable: bool = True
    slow: bool = False

    def seconds(self, usual: float) -> float:
        """Return the time limit of this call in seconds. `usual` is the limit of calls that are not slow."""
        return max(usual, SLOW_CALL_TIMEOUT_S) if self.slow else usual

    def answer(self, response: httpx.Response) -> T:
        """Parse the server's response.

        Raises:
            ApiError: the server rejected the request or failed.
            UnexpectedAnswer: the response is not from this service.
        """
        if response.is_error:
            raise error_of(_problem(response), request_id_of(response), retry_after(response))
        if response.is_redirect:
            raise UnexpectedAnswer(
                f"{response.url} redirects to {response.headers['location']}. Create the client with that address."
            )
        try:
            return self.read(response.content)
        except ValidationError as error:
            kind = response.headers.get("content-type", "something")
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise UnexpectedAnswer(
                f"{response.url} returned {response.status_code} with {kind} that cannot be parsed: {first['msg']}"
                f"{where and f' ({where})'}. Check the address, and check that client and server have the same version."
            ) from error


def asking(path: str, body: object, answer: type[Answer]) -> Call[Answer]:
    """Build a POST call that sends JSON, parses the response as a model, and changes nothing on the server."""
    return Call("POST", path, answer.model_validate_json, to_json(body))


def getting(path: str, answer: type[Answer]) -> Call[Answer]:
    """Build a GET call that parses the response as a model."""
    return Call("GET", path, answer.model_validate_json)


def deleting(path: str, repeatable: bool = True, slow: bool = False) -> Call[None]:
    """Build a DELETE call. Its response has no content."""
    return Call("DELETE", path, lambda content: None, repeatable=repeatable, slow=slow)


def retry_after(response: httpx.Response) -> float | None:
    """Return the value of the `Retry-After` header in seconds, or None if it is missing or a date."""
    said = response.headers.get("retry-after", "")
    return float(said) if said.isdecimal() else None


def request_id_of(response: httpx.Response) -> str:
    """Return the request ID from the response, or the ID that was sent if the response has none."""
    return str(response.headers.get(REQUEST_ID) or response.request.headers[REQUEST_ID])


def _problem(response: httpx.Response) -> Problem:
    """Parse the problem in a response. If there is none, as in a proxy's response, build one from the status."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        phrase = HTTPStatus(response.status_code).phrase
        return Problem(
            type="about:blank",
            title=phrase,
            status=response.status_code,
            detail=f"{response.url} returned {response.status_code} {phrase} without a reason. Check the server and "
            "any proxy in front of it.",
            instance=response.url.path,
        )
