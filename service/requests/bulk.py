"""Bulk uploads (`POST /items/bulk`): any number of changes, line by line, in bounded memory.

Lines are read as they come and processed in groups: encoded together, made durable together, and only then
answered. A group takes its turn among the other requests; while it waits, no more is read, so that a client that
sends faster than this machine works is slowed down by TCP and never refused.

Many clients read no reply before they have sent all. So replies are held back until then, except for a little that
the kernel always has room for, which shows the deadline that the response has begun.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from indexes.journal.journal import Change
from indexes.live.snapshot import Snapshot
from model.errors import RcmlError
from service.http.openapi import NDJSON
from service.lifecycle.engine_holder import EngineHolder
from service.problems.kinds import Kind
from service.problems.rejections import FAILED, Rejection, rejection_of
from service.problems.validation import validation_rejection
from service.schemas.item_changes import BulkLine, BulkReply
from service.telemetry.logs import logger

from .apply_item_changes import ItemChanges
from .context import RequestContext
from .json_route import THREADED_BODY_BYTES, read

LINES_PER_GROUP = 64
"""Lines that are made durable together, at most, with one sync of the disk."""

BYTES_PER_GROUP = 4 * 2**20
"""Bytes from which a group is complete with fewer lines."""

CONCURRENT_LINES = 16
"""Lines that are encoded together: a batch of the network's, so that other requests wait for no more than one."""

MAX_EARLY_REPLY_BYTES = 32 * 2**10
"""Bytes of replies sent while the body still comes: no more than a socket takes unread."""

MAX_HELD_REPLY_BYTES = 16 * 2**20
"""Bytes of replies that are held back; beyond, the upload waits until the client reads."""


class Line(NamedTuple):
    """A line of a body, and its number; the content is None if it is too long."""

    number: int
    content: bytes | None


async def lines(chunks: AsyncIterator[bytes], longest: int) -> AsyncIterator[Line]:
    """Split a body that comes in chunks into lines; the last line may lack its end."""
    number, kept, size = 1, bytearray(), 0
    async for chunk in chunks:
        *ends, rest = chunk.split(b"\n")
        for part in ends:
            size += len(part)
            yield Line(number, bytes(kept + part) if size <= longest else None)
            number, size = number + 1, 0
            kept.clear()
        size += len(rest)
        if size <= longest:
            kept += rest
        else:
            kept.clear()
    if size:
        yield Line(number, bytes(kept) if size <= longest else None)


@dataclass(frozen=True)
class Bulk:
    """One bulk upload; each group is applied to the engine that is current then."""

    request: Request
    loading: EngineHolder
    longest: int

    async def replies(self, group: Sequence[Line]) -> list[BulkReply]:
        """Apply a group of lines; each that gets a reply of success is durable."""
        try:
            current = self.loading.engine
        except RcmlError as error:
            return [self._refused(line.number, None, _refusal(error)) for line in group]
        with current.held() as engine:
            changes = ItemChanges(RequestContext.of(self.request, engine), retries=True)
            turns = asyncio.Semaphore(CONCURRENT_LINES)

            async def change(line: Line) -> Change | BulkReply:
                async with turns:
                    return await self._change(line, changes)

            found = await asyncio.gather(*map(change, group))
            before = engine.index.snapshot
            try:
                await changes.apply([one for one in found if isinstance(one, Change)])
            except RcmlError as error:
                refusal = _refusal(error)
                return [
                    one if isinstance(one, BulkReply) else self._refused(line.number, one.item_id, refusal)
                    for line, one in zip(group, found, strict=True)
                ]
            return _replies(group, found, before)  # while the engine is held: `before` reads its files

    async def _change(self, line: Line, changes: ItemChanges) -> Change | BulkReply:
        """Make the change that a line asks for, or a reply that says why it is refused."""
        if line.content is None:
            detail = f"The line is longer than the limit of {self.longest} bytes. Send a shorter one."
            return self._refused(line.number, None, Rejection(Kind.of(413), detail))
        item_id = None
        try:
            if len(line.content) > THREADED_BODY_BYTES:
                asked = await asyncio.to_thread(read, BulkLine, line.content)
            else:
                asked = read(BulkLine, line.content)
            if asked.upsert is None:
                assert asked.delete is not None, "a line is one or the other"
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


def _replies(group: Sequence[Line], found: Sequence[Change | BulkReply], before: Snapshot) -> list[BulkReply]:
    """Write the replies to a group that was applied to the snapshot `before`."""
    there: dict[str, bool] = {}
    replies = []
    for line, one in zip(group, found, strict=True):
        if isinstance(one, Change):
            known = there.get(one.item_id, one.item_id in before)
            there[one.item_id] = one.item is not None
            status = 204 if one.item is None else 200 if known else 201
            one = BulkReply(line=line.number, item_id=one.item_id, status=status)
        replies.append(one)
    return replies


class BulkResponse(Response):
    """The response to a bulk upload, which reads the body while it is sent; Starlette's own would discard it."""

    def __init__(self, bulk: Bulk) -> None:
        super().__init__(media_type=NDJSON)
        del self.headers["content-length"]
        self.bulk = bulk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Answer(self, send)
        group: list[Line] = []
        size = 0
        try:
            async for line in lines(Request(scope, receive).stream(), self.bulk.longest):
                if line.content is not None and not line.content.strip():
                    continue
                group.append(line)
                size += len(line.content or b"")
                if len(group) == LINES_PER_GROUP or size >= BYTES_PER_GROUP:
                    await answer.add(await self.bulk.replies(group))
                    group, size = [], 0
        except ClientDisconnect:
            return
        except HTTPException:  # the body is too long
            if not answer.begun:
                raise
            await answer.end()  # what follows the last reply was not looked at
            return
        if group:
            await answer.add(await self.bulk.replies(group))
        await answer.end()


class _Answer:
    """A sender of replies, as far as a client that is still sending can take them."""

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
