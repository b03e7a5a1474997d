"""Byte ranges of pictures and static files (RFC 9110, 14.2).

Starlette answers a range that it cannot parse, or that lies behind the end of the file, with plain text. This
middleware leaves out a `Range` field that is invalid, as the RFC asks, and answers 416 with a problem document.
"""

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems.kinds import Kind
from service.problems.response import problem_response

MAX_RANGES = 16
"""Maximum number of ranges in a request. A request with more gets the whole file, because each range costs time."""

_RANGES = re.compile(
    rb"bytes=\s*(?:\d{1,18}-(?:\d{1,18})?|-\d{1,18})(?:\s*,\s*(?:\d{1,18}-(?:\d{1,18})?|-\d{1,18}))*"
)


class Ranges:
    """Pure ASGI middleware that ignores invalid ranges, and answers 416 with a problem document."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, without an invalid range."""
        asked = [value for name, value in scope.get("headers", ()) if name == b"range"]
        if not asked:
            await self.app(scope, receive, send)
            return
        if scope["method"] != "GET" or len(asked) > 1 or not is_valid(asked[0].strip()):
            scope["headers"] = [field for field in scope["headers"] if field[0] != b"range"]
        refused = False

        async def send_problem(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] == 416:
                refused = True
                size = next(value for name, value in message["headers"] if name == b"content-range").decode()
                detail = (
                    f"The range {asked[0][:80].decode('latin-1')} is not part of the file, which has "
                    f"{size.rpartition('/')[2]} bytes. Send a range within it, or leave the Range field out."
                )
                answer = problem_response(
                    Kind.of(416), detail, scope["path"], headers={"Content-Range": size}
                )
                await answer(scope, receive, send)
            elif not refused:
                await send(message)

        await self.app(scope, receive, send_problem)


def is_valid(value: bytes) -> bool:
    """Return whether a `Range` field has at most `MAX_RANGES` byte ranges, none of which ends before its start."""
    if not _RANGES.fullmatch(value):
        return False
    parts = [part.strip().partition(b"-") for part in value.partition(b"=")[2].split(b",")]
    return len(parts) <= MAX_RANGES and all(
        not (start and end) or int(start) <= int(end) for start, _, end in parts
    )
