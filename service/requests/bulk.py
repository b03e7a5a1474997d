"""Bulk uploads (`POST /items/bulk`): any number of changes, one per line, in bounded memory.

Lines are read as they arrive and processed in groups. The lines of a group are encoded together, made durable together,
and only then answered. A group queues like any other request, and nothing more is read while it waits. TCP flow control
therefore slows down a client that sends faster than the server works, and the client is never rejected.

Many clients do not read any reply until they have sent the whole body. Replies are therefore held back until the end of
the body, except for a few early replies that always fit into the socket buffer. The early replies also start the
response before the deadline of the request.
"""

import asyncio
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from indexes.journal.change import Change
from model.errors import RcmlError
from service.engine.engine import Engine
from service.http.openapi import NDJSON
from service.http.route_rules import SCOPE_CHARGE
from service.lifecycle.engine_holder import EngineHolder
from service.problems.errors import RateLimitError
from service.problems.kinds import Kind
from service.problems.rejections import FAILED, Rejection, rejection_of
from service.problems.validation import validation_rejection
from service.schemas.item_changes import BulkLine, BulkReply
from service.telemetry.logs import logger

from .apply_item_changes import ItemChanges
from .context import RequestContext
from .json_route import BYTES_PER_COST, THREADED_BODY_BYTES, read

LINES_PER_GROUP = 64
"""Maximum number of lines in a group. One fsync makes the whole group durable."""

BYTES_PER_GROUP = 4 * 2**20
"""Size in bytes at which a group is complete even if it has fewer lines."""

CONCURRENT_LINES = 16
"""Maximum number of lines that are encoded concurrently. They fill one batch, so other requests wait only briefly."""

SLICE_BYTES = 2 * 2**10
"""Bytes that are split into lines at a time. If all are newlines, they take less than a millisecond."""

RESULTS_PER_LINE = 10
"""Results whose turn on the event loop a line takes (`loop_turns.py`). A refused line takes about as long."""

MAX_EARLY_REPLY_BYTES = 32 * 2**10
"""Maximum bytes of replies sent before the end of the body. A socket buffers this much without a reader."""

MAX_HELD_REPLY_BYTES = 16 * 2**20
"""Size in bytes above which held replies are sent. Sending waits until the client reads, which bounds the memory."""


class Line(NamedTuple):
    """A line of a body and its number, counted from 1. The content is None if the line is too long."""

    number: int
    content: bytes | None


async def lines(chunks: AsyncIterator[bytes], longest: int) -> AsyncIterator[Line]:
    """Split a body that arrives in chunks into lines without the empty ones. The last line may lack a newline.

    A chunk is split in slices, and the event loop looks at other requests between two of them: 256 KiB of newlines
    would hold it for 0.35 s.
    """
    number, kept, size = 1, bytearray(), 0
    async for chunk in chunks:
        for start in range(0, len(chunk), SLICE_BYTES):
            *ends, rest = chunk[start : start + SLICE_BYTES].split(b"\n")
            for part in ends:
                if not part and not size:  # an empty line
                    number += 1
                    continue
                size += len(part)
                if size > longest:
                    yield Line(number, None)
                elif content := _without_blanks(bytes(kept + part) if kept else part):
                    yield Line(number, content)
                number, size = number + 1, 0
                kept.clear()
            size += len(rest)
            if size <= longest:
                kept += rest
            else:
                kept.clear()
            await asyncio.sleep(0)
    if size > longest:
        yield Line(number, None)
    elif content := _without_blanks(bytes(kept)):
        yield Line(number, content)


def _without_blanks(line: bytes) -> bytes:
    """Return a line, or nothing if it has only a byte order mark and white space."""
    return line if line.removeprefix(BOM_UTF8).strip() else b""


@dataclass(frozen=True)
class Bulk:
    """One bulk upload. Each group of lines is applied to the engine that is current when the group starts."""

    request: Request
    loading: EngineHolder
    longest: int

    async def replies(self, group: Sequence[Line]) -> list[BulkReply]:
        """Apply a group of lines and return their replies. A line with a success status is durable."""
        await self._charge(group)
        try:
            current = self.loading.engine
        except RcmlError as error:
            return [self._refused(line.number, None, _refusal(error)) for line in group]
        with current.held() as engine:
            async with engine.bulk_groups:
                return await self._applied(group, engine)

    async def _charge(self, group: Sequence[Line]) -> None:
        """Charge a group to the rate of the caller: 1 for each line, and for each `BYTES_PER_COST`.

        A caller that has used up its rate waits. Nothing more of its upload is read meanwhile.
        """
        charge = self.request.scope.get(SCOPE_CHARGE)
        if charge is None:
            return
        cost = len(group) + sum(len(line.content or b"") for line in group) // BYTES_PER_COST
        while True:
            try:
                charge(1 + cost)  # the first is taken before the body is read
                return
            except RateLimitError as error:
                await asyncio.sleep(error.retry_after)

    async def _applied(self, group: Sequence[Line], engine: Engine) -> list[BulkReply]:
        """Apply a group of lines to an engine and return their replies."""
        changes = ItemChanges(RequestContext.of(self.request, engine), retries=True)
        turns = asyncio.Semaphore(CONCURRENT_LINES)

        async def change(line: Line) -> Change | BulkReply:
            async with turns:
                return await self._change(line, changes)

        found = await asyncio.gather(*map(change, group))
        try:
            existed = await changes.apply([one for one in found if isinstance(one, Change)])
        except RcmlError as error:
            refusal = _refusal(error)
            return [
                one if isinstance(one, BulkReply) else self._refused(line.number, one.item_id, refusal)
                for line, one in zip(group, found, strict=True)
            ]
        return _replies(group, found, existed)

    async def _change(self, line: Line, changes: ItemChanges) -> Change | BulkReply:
        """Return the change that a line requests, or a reply with the reason why the line is rejected."""
        if line.content is None:
            detail = f"The line is longer than the limit of {self.longest} bytes. Send a shorter line."
            return self._refused(line.number, None, Rejection(Kind.of(413), detail))
        item_id = None
        await changes.query.engine.turns.take(RESULTS_PER_LINE)
        try:
            if len(line.content) > THREADED_BODY_BYTES:
                asked = await asyncio.to_thread(read, BulkLine, line.content)
            else:
                asked = read(BulkLine, line.content)
            if asked.upsert is None:
                assert asked.delete is not None, "a line must be an upsert or a delete"
                return Change(asked.delete)
            item_id = asked.upsert.item_id
            return await changes.put(item_id, asked.upsert)
        except RequestValidationError as error:
            return self._refused(line.number, None, validation_rejection(error, BulkLine, "line"))
        except RcmlError as error:
            return self._refused(line.number, item_id, _refusal(error))

    def _refused(self, number: int, item_id: str | None, refusal: Rejection) -> BulkReply:
        problem = refusal.problem(self.request.scope["path"])
        return BulkReply(line=number, item_id=item_id, status=problem.status, problem=problem)


def _refusal(error: RcmlError) -> Rejection:
    refusal = rejection_of(error)
    if refusal is None:
        logger.error("%s", error, exc_info=error)
    return refusal or FAILED


def _replies(
    group: Sequence[Line], found: Sequence[Change | BulkReply], existed: Iterable[bool]
) -> list[BulkReply]:
    """Return the replies to a group. `existed` tells for each applied change whether its item existed before."""
    known = iter(existed)
    replies = []
    for line, one in zip(group, found, strict=True):
        if isinstance(one, Change):
            replaced = next(known)
            status = 204 if one.item is None else 200 if replaced else 201
            one = BulkReply(line=line.number, item_id=one.item_id, status=status)
        replies.append(one)
    return replies


class BulkResponse(Response):
    """Response to a bulk upload. It sends replies while it still reads the request body.

    Starlette's `StreamingResponse` cannot be used, because it discards the request body.
    """

    def __init__(self, bulk: Bulk) -> None:
        super().__init__(media_type=NDJSON)
        del self.headers["content-length"]
        self.bulk = bulk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, apply it group by group, and send the replies."""
        answer = _Answer(self, send)
        group: list[Line] = []
        size = 0
        try:
            async for line in lines(Request(scope, receive).stream(), self.bulk.longest):
                group.append(line)
                size += len(line.content or b"")
                if len(group) == LINES_PER_GROUP or size >= BYTES_PER_GROUP:
                    await answer.add(await self.bulk.replies(group))
                    group, size = [], 0
        except ClientDisconnect:
            return
        except HTTPException:  # the body exceeds its limit
            if not answer.begun:
                raise
            await answer.end()  # the lines after the last reply were not processed
            return
        if group:
            await answer.add(await self.bulk.replies(group))
        await answer.end()


class _Answer:
    """Sender of replies that holds most of them back until the client has sent the whole body."""

    def __init__(self, response: BulkResponse, send: Send) -> None:
        self._response, self._send = response, send
        self._early = 0
        self._held = bytearray()
        self.begun = False

    async def add(self, replies: Sequence[BulkReply]) -> None:
        lines = b"".join(
            reply.__pydantic_serializer__.to_json(reply, exclude_none=True) + b"\n" for reply in replies
        )
        if self._early + len(lines) <= MAX_EARLY_REPLY_BYTES and not self._held:
            self._early += len(lines)
            await self._write(lines)
            return
        self._held += lines
        if len(self._held) > MAX_HELD_REPLY_BYTES:
            await self._write(bytes(self._held))
            self._held.clear()

    async def end(self) -> None:
        await self._write(bytes(self._held), last=True)

    async def _write(self, content: bytes, last: bool = False) -> None:
        if not self.begun:
            self.begun = True
            headers = self._response.raw_headers
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": content, "more_body": not last})
