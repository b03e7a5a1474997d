"""The connections of the HTTP server: what a client may take of its time and memory, and how each of them ends.

uvicorn parses, answers and keeps alive; it waits for ever for a request that is not finished and for an answer that
is not read, and a limit on connections makes it refuse the honest ones while slow ones hold them. `Connection` is its
protocol with bounds: a slow client is cut, a malformed request is refused with a problem document, and a client that
still sends may read why before the connection goes (RFC 9112, 9.6). `Server` looks at all connections four times a
second, so nothing is timed for each request. `serve` starts it.

The parser (llhttp, strict) refuses what smuggles: two lengths, a length beside chunks, line feeds alone, folded
fields. What it lets pass and RFC 9112 does not is refused here.
"""

import asyncio
import heapq
import resource
import socket
from array import array
from collections.abc import Iterable
from fcntl import ioctl
from http import HTTPStatus
from struct import pack
from termios import FIONREAD, TIOCOUTQ
from typing import Any, Literal
from urllib.parse import quote, unquote

import uvicorn
from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
    parse_url,
)
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from service.problem_kinds import Kind

from .limits import Deadlines, Limits
from .problems import MEDIA_TYPE

MOST_FRAMING = 64 * 2**10
"""Bytes of chunk sizes, extensions and trailers, beyond `FRAMING_RATIO` for each byte of the body."""


FRAMING_RATIO = 8
"""Bytes on the wire for a byte of the body: chunks of one byte take six."""


class _Config(uvicorn.Config):
    """uvicorn's options, and ours, where each connection finds them."""

    def __init__(
        self, app: Any, limits: Limits, deadlines: Deadlines, log_level: str, **options: Any
    ) -> None:
        super().__init__(
            app,
            http=Connection,
            ws="none",
            log_level=log_level,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=deadlines.grace,
            **options,
        )
        self.limits = limits
        self.deadlines = deadlines
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.most_connections = max(1, min(limits.connections, files // 2))


class Server(uvicorn.Server):
    """uvicorn's server with connections that have bounds.

    On SIGTERM whatever has reached this machine is answered: connections that wait to be accepted are, requests under
    way are finished, and connections kept alive get their next answer with `Connection: close`.
    """

    def __init__(
        self,
        app: Any,
        limits: Limits = Limits(),
        deadlines: Deadlines = Deadlines(),
        log_level: str = "info",
        **options: Any,
    ) -> None:
        """Serve `app`; `options` are uvicorn's own."""
        super().__init__(_Config(app, limits, deadlines, log_level, **options))
        self.deadlines = deadlines

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._sweeping = asyncio.create_task(self._sweep())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await self._accept(sockets or [])
            await super().shutdown(sockets)
        finally:
            self._sweeping.cancel()

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.deadlines.sweep)
            await asyncio.sleep(0)  # what came while the loop was busy is read first: it is not late
            now = loop.time()
            for connection in _ours(self.server_state):
                connection.sweep(now)

    async def _accept(self, listeners: Iterable[socket.socket]) -> None:
        """Accept what waits at the listeners: closing them would reset it, with the request it has sent."""
        loop = asyncio.get_running_loop()
        for listener in listeners:
            listener.setblocking(False)
            waiting: list[socket.socket] = []
            try:
                while True:
                    waiting.append(listener.accept()[0])
            except OSError:  # none is left, or it went away, or no file descriptor is
                pass
            for client in waiting:
                await loop.connect_accepted_socket(self._connection, client)

    def _connection(self) -> "Connection":
        return Connection(self.config, self.server_state, self.lifespan.state)


Stage = Literal["idle", "head", "body", "closed"]
"""What is awaited of a client: nothing or a request's first byte, the rest of its head, the rest of its body, or that
it closes, since it has had its last answer."""


class _Refusal(Exception):
    """Raised out of the parser's callbacks; the parser hands it on as the context of its own error."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        self.status = status
        self.detail = detail


class Connection(HttpToolsProtocol):
    """One connection of a client."""

    __slots__ = (  # Python shares the keys of up to 30 attributes among instances, which uvicorn's own nearly are
        "_body", "_body_then", "_deaf", "_draining", "_latest", "_refusal", "_requests", "_seen", "_since",
        "_unread_then", "_wire", "deadlines", "limits", "most_connections", "stage",
    )  # fmt: skip

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        assert isinstance(config, _Config)
        self.limits = config.limits
        self.deadlines = config.deadlines
        self.most_connections = config.most_connections
        self.stage: Stage = "idle"
        self._deaf = False  # whatever else comes is thrown away
        self._refusal: bytes | None = None  # to be sent once earlier requests are answered
        self._draining = False

        # Counted as it comes in.
        self._requests = 0
        self._latest = 0  # bytes that came last
        self._wire = 0  # bytes since the request, or its body, began; without those that came along with that
        self._body = 0

        # What the sweep saw.
        self._seen: tuple[Stage, int] = ("idle", 0)
        self._since = self.loop.time()
        self._body_then = 0
        self._unread_then: tuple[float, int] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            # Not before the loop has read what those that were just accepted have sent.
            self.loop.call_soon(_make_room, self.server_state, self.most_connections)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._latest = len(data)
        self._wire += self._latest
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
            return
        except HttpParserError as error:
            self._refuse(*_reason(error))
            return
        if self.stage == "head" and self._wire > self.limits.head:
            self._refuse(*self._long_head())
        elif self.stage == "body" and self._wire > MOST_FRAMING + FRAMING_RATIO * self._body:
            self._refuse(
                HTTPStatus.BAD_REQUEST, "The body is mostly framing. Send larger chunks, without extensions."
            )
        elif self._draining:
            self._say_last()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read a request anew without its offer of another protocol (RFC 9110, 7.8).

        The parser takes it that a body does not follow; Java's HttpClient offers HTTP/2 with its first request, body
        or not.
        """
        head = [b"%b %b HTTP/1.1\r\n" % (self.parser.get_method(), self.url)]
        head += [b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.data_received(b"".join([*head, b"\r\n", rest]))

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.stage = "head"
        self._wire = 0

    def on_headers_complete(self) -> None:
        chunked = self._check_head()
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise _malformed("CONNECT is for proxies.")
            return
        super().on_headers_complete()
        if chunked:  # trailers may be dropped (RFC 9110, 6.5.1), and may not pass for headers
            self.headers = []
        self.stage = "body"
        self._requests += 1
        self._wire = self._body = 0

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        if self._body > self.limits.bodies.body:
            # What is sent to an answer that was given already is thrown away, and there is no need for much of that.
            most = self.limits.bodies.body if self.cycle.response_complete else self._most_body()
            if self._body > most:
                raise _long_body(most)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.stage == "body":  # not the end of an offer to upgrade
            super().on_message_complete()
            self.stage = "idle"

    def _check_head(self) -> bool:
        """Refuse what the parser lets pass; returns whether the body is in chunks.

        Raises:
            _Refusal: the head or the body it declares is too long, or breaks RFC 9112.
        """
        limits, headers = self.limits, self.headers
        if len(headers) > limits.fields or len(self.url) > limits.target:
            raise _Refusal(*self._long_head())
        if self._wire + self._latest > limits.head:  # counts what came with it, so the sum is seldom needed
            size = len(self.url) + sum(len(name) + len(value) for name, value in headers)
            if size > limits.head:
                raise _Refusal(*self._long_head())
        fields = dict(headers)
        if len(fields) < len(headers):
            names = [name for name, _ in headers]
            if names.count(b"host") > 1 or names.count(b"transfer-encoding") > 1:
                raise _malformed("a Host or Transfer-Encoding field is repeated.")
        version = self.parser.get_http_version()
        if version != "1.1" and (version != "1.0" or b"transfer-encoding" in fields):
            raise _malformed(f"HTTP/{version} is not spoken here, or not with chunks.")
        if version == "1.1" and b"host" not in fields:
            raise _malformed("a Host field is missing.")
        if b"content-length" in fields and int(fields[b"content-length"]) > limits.bodies.body:
            most = self._most_body()
            if int(fields[b"content-length"]) > most:
                raise _long_body(most)
        if len(self.pipeline) >= limits.pipeline:
            raise _Refusal(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"At most {limits.pipeline} requests may wait on a connection. Send more after an answer.",
            )
        encoding = fields.get(b"transfer-encoding", b"chunked").lower()
        if encoding != b"chunked":
            raise _malformed("no transfer encoding but chunked is read here.")
        return b"transfer-encoding" in fields

    def _long_head(self) -> tuple[HTTPStatus, str]:
        if len(self.url) > self.limits.target:
            detail = f"The target is longer than the limit of {self.limits.target} bytes. Send a shorter one."
            return HTTPStatus.REQUEST_URI_TOO_LONG, detail
        detail = (
            f"The header fields exceed the limit of {self.limits.head} bytes or {self.limits.fields} fields. "
            "Send fewer or shorter ones."
        )
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail

    def _most_body(self) -> int:
        """Bytes that the body of the request being received may have; looked up only for one that is long."""
        method = self.parser.get_method().decode("latin-1")
        path = unquote(parse_url(self.url).path.decode("latin-1"))
        kind = next((value for name, value in self.headers if name == b"content-type"), b"")
        return self.limits.bodies.most(method, path, kind.decode("latin-1"))

    # Answers, and the ways to end.

    def on_response_complete(self) -> None:
        """As uvicorn's, without a timer: the sweep sees who is idle."""
        self.server_state.total_requests += 1
        self._unread_then = None
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._finish(self._refusal)

    def shutdown(self) -> None:
        """The server is about to stop: say so with the next answer, and wait a little for its request."""
        self._draining = True
        self._since = self.loop.time()
        self._say_last()

    def _say_last(self) -> None:
        """Close with the answer to the newest request, unless the kernel holds more that came before it."""
        if self.stage == "idle" and self._answering() and not self._in_kernel(FIONREAD):
            self.cycle.keep_alive = False

    def _in_kernel(self, queue: int) -> int:
        """Bytes that have arrived and are not read yet (FIONREAD), or are sent and not received (TIOCOUTQ)."""
        count = array("i", [0])
        ioctl(self.transport.get_extra_info("socket").fileno(), queue, count)
        return count[0]

    def _answering(self) -> bool:
        return bool(self.pipeline) or (self.cycle is not None and not self.cycle.response_complete)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answer what is being received with a problem, after all that was received before it, and close."""
        if self._deaf:
            return
        self._deaf = True
        refusal = self._problem(status, detail)
        self.logger.info("Refused a request: %d %s", status, detail)
        if self.stage == "body" and not self.pipeline:
            started = self.cycle.response_started
            if not self.cycle.response_complete:  # the app need not go on
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self._finish(b"" if started else refusal)
            return
        if self.stage == "body":
            self.pipeline.popleft()
        if self._answering():
            self._refusal = refusal
        else:
            self._finish(refusal)

    def _finish(self, answer: bytes = b"") -> None:
        """Send a last answer and close, reading on for a moment: a reset would take the answer with it."""
        self.stage = "closed"
        self._deaf = True
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        self.transport.write(answer)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _reset(self) -> None:
        """Close at once; the kernel, too, forgets what the client has not read."""
        client = self.transport.get_extra_info("socket")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
        self.transport.abort()

    def _problem(self, status: HTTPStatus, detail: str) -> bytes:
        known = self.stage in ("head", "body") and len(self.url) <= self.limits.target
        instance = quote(self.url.partition(b"?")[0]) if known else ""
        body = Kind.of(status).problem(detail, instance).model_dump_json(exclude_none=True).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
            headers.append((b"retry-after", b"1"))
        return b"".join([STATUS_LINE[status], *(b"%b: %b\r\n" % field for field in headers), b"\r\n", body])

    # The sweep.

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_then = None

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread_then = None

    def sweep(self, now: float) -> None:
        """Cut the client if it has taken too long over what is awaited of it; `now` is the loop's time."""
        unread = self.transport.get_write_buffer_size()
        if unread:
            self._since = now
            # The kernel takes more only once much of its own has gone, so that counts as well.
            self._watch_reading(now, unread + self._in_kernel(TIOCOUTQ))
            return
        self._unread_then = None
        if self._seen != (self.stage, self._requests):
            self._seen = (self.stage, self._requests)
            self._since, self._body_then = now, self._body
        elif self._awaits_client():
            self._watch(now - self._since, now)
        else:
            self._since, self._body_then = now, self._body

    def _awaits_client(self) -> bool:
        if self.flow.read_paused or self.transport.is_closing():
            return False
        return self.stage != "idle" or not self._answering()

    def _watch(self, waited: float, now: float) -> None:
        deadlines = self.deadlines
        match self.stage:
            case "head" if waited >= deadlines.head:
                detail = f"The header fields took longer than {deadlines.head:g} s. Send them at once."
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, detail)
            case "body" if waited >= deadlines.window:
                if self._body - self._body_then < deadlines.rate * waited:
                    detail = f"The body came slower than {deadlines.rate} bytes/s. Send it faster."
                    self._refuse(HTTPStatus.REQUEST_TIMEOUT, detail)
                self._since, self._body_then = now, self._body
            case "idle" if waited >= self._patience():
                # Silently: a client that is just sending would take a 408 for the answer to that.
                self._finish()
            case "closed" if waited >= deadlines.linger:
                self.transport.abort()

    def _patience(self) -> float:
        if self._draining:
            return self.deadlines.last_call
        return self.deadlines.idle if self._requests else self.deadlines.head

    def _watch_reading(self, now: float, unread: int) -> None:
        """Cut a client that does not read its answer; nothing is added to the `unread` bytes meanwhile.

        An answer is one or several writes; while the buffer is full the next one waits, and else it starts anew.
        """
        if self._unread_then is None:
            self._unread_then = (now, unread)
            return
        then, unread_then = self._unread_then
        if now - then >= self.deadlines.window:
            if unread_then - unread < self.deadlines.rate * (now - then):
                self._reset()
            self._unread_then = (now, unread)

    # Room for others.

    @property
    def unfinished(self) -> bool:
        """Whether it has no complete request that awaits its answer."""
        match self.stage:
            case "closed":
                return True
            case "body":
                return not self.pipeline
            case _:
                return not self._answering()

    @property
    def seniority(self) -> tuple[bool, float]:
        """Small for those that are cut first: who never had an answer, and who is unfinished for longest."""
        return self.cycle is not None and self.cycle.response_complete, self._since

    def make_room(self) -> None:
        """Close now, with a word to who has begun a request."""
        if self.stage in ("head", "body"):
            self._refuse(
                HTTPStatus.REQUEST_TIMEOUT, "The request was not finished when others needed its place."
            )
        self.connections.discard(self)
        if self.transport.get_write_buffer_size():
            self._reset()
        else:
            self.transport.close()


def _ours(state: ServerState) -> list[Connection]:
    """The connections of a server, in a list that stays as it is while some of them end."""
    return [one for one in state.connections if isinstance(one, Connection)]


def _make_room(state: ServerState, most: int) -> None:
    """Close the longest unfinished connections beyond `most`."""
    excess = len(state.connections) - most
    if excess > 0:
        unfinished = [one for one in _ours(state) if one.unfinished]
        for one in heapq.nsmallest(excess, unfinished, key=lambda one: one.seniority):
            one.make_room()


def _long_body(most: int) -> _Refusal:
    detail = f"The body is longer than the limit of {most} bytes. Send a shorter one."
    return _Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)


def _malformed(reason: str) -> _Refusal:
    return _Refusal(HTTPStatus.BAD_REQUEST, f"The request breaks HTTP/1.1 (RFC 9112): {reason}")


def _reason(error: HttpParserError) -> tuple[HTTPStatus, str]:
    """Why the parser stopped: a refusal of ours, or its own words."""
    refusal = error.__context__
    if not isinstance(refusal, _Refusal):
        callback = isinstance(error, HttpParserCallbackError)
        refusal = _malformed("its target cannot be read." if callback else f"{str(error).rstrip('.')}.")
    return refusal.status, refusal.detail
