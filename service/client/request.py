"""One request to the service: what is sent, how its answer is read, and whether it may be sent twice."""

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
"""Seconds that a server takes for slow calls, at most."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request whose answer is a T.

    One that is `repeatable` does no more when it is done twice. A `slow` one may take minutes.
    """

    method: str
    path: str
    read: Callable[[bytes], T]
    content: bytes | None = field(default=None, repr=False)
    params: Mapping[str, int] | None = None
    media_type: str = "application/json"
    repeatable: bool = True
    slow: bool = False

    def seconds(self, usual: float) -> float:
        """Return the seconds it may take if most calls take `usual` seconds at most."""
        return max(usual, SLOW_CALL_TIMEOUT_S) if self.slow else usual

    def answer(self, response: httpx.Response) -> T:
        """Read what the server answered.

        Raises:
            ApiError: it refused, or failed.
            UnexpectedAnswer: it is not the service that was asked.
        """
        if response.is_error:
            raise error_of(_problem(response), request_id_of(response), retry_after(response))
        if response.is_redirect:
            raise UnexpectedAnswer(
                f"{response.url} sends on to {response.headers['location']}. Give the client that address."
            )
        try:
            return self.read(response.content)
        except ValidationError as error:
            kind = response.headers.get("content-type", "something")
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise UnexpectedAnswer(
                f"{response.url} answered {response.status_code} with {kind} that cannot be read: {first['msg']}"
                f"{where and f' ({where})'}. Check the address, and that client and server are of one version."
            ) from error


def asking(path: str, body: object, answer: type[Answer]) -> Call[Answer]:
    """Make the call of a question: JSON is sent, a model comes back, and nothing is changed."""
    return Call("POST", path, answer.model_validate_json, to_json(body))


def getting(path: str, answer: type[Answer]) -> Call[Answer]:
    """Make the call that gets a model."""
    return Call("GET", path, answer.model_validate_json)


def deleting(path: str, repeatable: bool = True, slow: bool = False) -> Call[None]:
    """Make the call that deletes, and is answered by nothing."""
    return Call("DELETE", path, lambda content: None, repeatable=repeatable, slow=slow)


def retry_after(response: httpx.Response) -> float | None:
    """Return the seconds after which the server wants to be asked again; None if it gives none, or a date."""
    said = response.headers.get("retry-after", "")
    return float(said) if said.isdecimal() else None


def request_id_of(response: httpx.Response) -> str:
    """Return the id of the request in the server's log; if the answer has none, the id that was sent."""
    return str(response.headers.get(REQUEST_ID) or response.request.headers[REQUEST_ID])


def _problem(response: httpx.Response) -> Problem:
    """Read the problem of an answer; make one of the status alone if a proxy wrote the answer."""
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        phrase = HTTPStatus(response.status_code).phrase
        return Problem(
            type="about:blank",
            title=phrase,
            status=response.status_code,
            detail=f"{response.url} answered {response.status_code} {phrase}, and nothing of why.",
            instance=response.url.path,
        )
