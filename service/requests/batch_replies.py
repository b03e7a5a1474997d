"""Replies to the queries of a batch request. Each query succeeds or fails independently."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from model.errors import RcmlError
from service.problems.rejections import rejection_of

from .context import CONCURRENT_PARTS

Asked = TypeVar("Asked", bound=BaseModel)


async def each_reply(
    questions: Sequence[Asked], answer: Callable[[Asked], Awaitable[Any]], path: str
) -> list[dict[str, Any]]:
    """Return the reply to each query, processing at most `CONCURRENT_PARTS` queries at a time.

    An error of one query does not affect the others.
    """
    turns = asyncio.Semaphore(CONCURRENT_PARTS)

    async def reply(question: Asked) -> dict[str, Any]:
        async with turns:
            try:
                return reply_of(await answer(question), path)
            except RcmlError as error:
                return reply_of(error, path)

    return [*await asyncio.gather(*map(reply, questions))]


def reply_of(answer: Any, path: str) -> dict[str, Any]:
    """Return the batch reply for one query, given its answer or its error.

    `path` is the route for a single query, such as `/retrieve`. The problem document of a rejected query contains
    `path` as the path of the request.

    Raises:
        RcmlError: The error is a server error, which fails the whole batch.
    """
    if not isinstance(answer, RcmlError):
        return {"status": 200, "answer": answer, "problem": None}
    rejection = rejection_of(answer)
    if rejection is None:
        raise answer
    problem = rejection.problem(path)
    return {"status": problem.status, "answer": None, "problem": problem.model_dump(exclude_none=True)}
