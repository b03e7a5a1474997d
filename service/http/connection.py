"""The connections of the HTTP server: what a client may take of its time and memory, and how each of them ends.

uvicorn parses, answers and keeps alive; it waits for ever for a request that is not finished and for an answer that
is not read, and a limit on connections makes it refuse the honest ones while slow ones hold them. `Connection` is its
protocol with bounds: a slow client is cut, a malformed request is refused with a problem document, and a client that
still sends may read why before the connection goes (RFC 9112, 9.6). `Server` looks at all connections four times a
second, so nothing is timed for each request. `serve` starts it.

What a head may be is in `request_head.py`, how slow a client may be in `slow_clients.py`, all bounds in `limits.py`.
"""

import asyncio
import heapq
import resource
import socket
from array import array
from collections.abc import Callable, Iterable
from fcntl import ioctl
from http import HTTPStatus
from struct import pack
from termios import FIONREAD, TIOCOUTQ
from time import monotonic
from typing import Any
from urllib.parse import quote

import uvicorn
from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from service.problems.kinds import Kind
from service.problems.response import MEDIA_TYPE

from .limits import FRAMING_RATIO, MAX_FRAMING_BYTES, Deadlines, Limits
from .request_head import BodyMode, RejectedRequest, RequestHead, long_body, long_head, malformed
from .slow_clients import Progress, ProgressWatch, Stage, TooSlow


class _Config(uvicorn.Config):
    """uvicorn's options, and ours, for each connection to find."""

    def __init__(
        self,
        app: Any,
        limits: Limits,
        deadlines: Deadlines,
        log_level: str,
        clock: Callable[[], float],
        **options: Any,
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
        self.clock = clock
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.max_connections = max(1, min(limits.connections, files // 2))


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
        clock: Callable[[], float] = monotonic,
        **options: Any,
    ) -> None:
        """Serve `app`; the deadlines are measured by `clock`, in seconds; `options` are uvicorn's own."""
        super().__init__(_Config(app, limits, deadlines, log_level, clock, **options))
        self.deadlines = deadlines
        self.clock = clock

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
        while True:
            await asyncio.sleep(self.deadlines.sweep)
            await asyncio.sleep(0)  # what came while the loop was busy is read first: it is not late
            now = self.clock()
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


class Connection(HttpToolsProtocol):
    """One connection of a client."""

    __slots__ = (  # Python shares the keys of up to 30 attributes among instances, which uvicorn's own nearly are
        "_deaf", "_draining", "_last_answer", "_latest", "_requests", "_watch", "_wire",
        "body_bytes", "clock", "deadlines", "limits", "max_connections", "stage",
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
        self.clock = config.clock
        self.max_connections = config.max_connections
        self.stage: Stage = "idle"
        self._deaf = False  # whatever else comes is thrown away
        self._last_answer: bytes | None = None  # to be sent once earlier requests are answered
        self._draining = False

        # Counted as it comes in.
        self._requests = 0
        self._latest = 0  # bytes that came last
        self._wire = 0  # bytes since the request, or its body, began; without those that came along with that
        self.body_bytes = 0
        self._watch = ProgressWatch(self.clock())

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            # Not before the loop has read what those that were just accepted have sent.
            self.loop.call_soon(_make_room, self.server_state, self.max_connections)

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
            self._reject(_rejection_of(error))
            return
        if self.stage == "head" and self._wire > self.limits.head:
            self._reject(long_head(self.url, self.limits))
        elif self.stage == "body" and self._wire > MAX_FRAMING_BYTES + FRAMING_RATIO * self.body_bytes:
            detail = "The body is mostly framing. Send larger chunks, without extensions."
            self._reject(RejectedRequest(HTTPStatus.BAD_REQUEST, detail))
        elif self._draining:
            self._say_last()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read a request again without its offer of another protocol (RFC 9110, 7.8).

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
        # The parser hands a rejection on as the context of its own error.
        mode = self._head().check(self.limits, self._wire + self._latest, len(self.pipeline))
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise malformed("CONNECT is for proxies.")
            return
        super().on_headers_complete()
        if mode is BodyMode.CHUNKED:
            # Trailers may be dropped (RFC 9110, 6.5.1), and must not pass for headers.
            self.headers = []
        self.stage = "body"
        self._requests += 1
        self._wire = self.body_bytes = 0

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)
        if self.body_bytes > self.limits.bodies.body:
            # What is sent to an answer that was given already is thrown away, and there is no need for much of that.
            limits = self.limits
            answered = self.cycle.response_complete
            longest = limits.bodies.body if answered else self._head().longest_body(limits)
            if self.body_bytes > longest:
                raise long_body(longest)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.stage == "body":  # not the end of an offer to upgrade
            super().on_message_complete()
            self.stage = "idle"

    def _head(self) -> RequestHead:
        method = self.parser.get_method().decode("latin-1")
        return RequestHead(method, self.url, self.parser.get_http_version(), self.headers)

    # Answers, and the ways to end.

    def on_response_complete(self) -> None:
        """Do as uvicorn does, without a timer: the sweep sees who is idle."""
        self.server_state.total_requests += 1
        self._watch.forget_reading()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._last_answer is not None:
            self._finish(self._last_answer)

    def shutdown(self) -> None:
        """Say with the next answer that the server is about to stop, and wait a little for its request."""
        self._draining = True
        self._watch.restart(self.clock())
        self._say_last()

    def _say_last(self) -> None:
        """Close with the answer to the newest request, unless the kernel holds more that came before it."""
        if self.stage == "idle" and self._answering() and not self._in_kernel(FIONREAD):
            self.cycle.keep_alive = False

    def _in_kernel(self, queue: int) -> int:
        """Count the bytes that have arrived and are not read (FIONREAD), or are sent and not received (TIOCOUTQ)."""
        count = array("i", [0])
        ioctl(self.transport.get_extra_info("socket").fileno(), queue, count)
        return count[0]

    def _answering(self) -> bool:
        return bool(self.pipeline) or (self.cycle is not None and not self.cycle.response_complete)

    def _reject(self, rejection: RejectedRequest) -> None:
        """Answer what is being received with a problem, after all that was received before it, and close."""
        if self._deaf:
            return
        self._deaf = True
        answer = self._problem(rejection.status, rejection.detail)
        self.logger.info("Refused a request: %d %s", rejection.status, rejection.detail)
        if self.stage == "body" and not self.pipeline:
            started = self.cycle.response_started
            if not self.cycle.response_complete:  # the app need not go on
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self._finish(b"" if started else answer)
            return
        if self.stage == "body":
            self.pipeline.popleft()
        if self._answering():
            self._last_answer = answer
        else:
            self._finish(answer)

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
        self._watch.forget_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._watch.forget_reading()

    def sweep(self, now: float) -> None:
        """Cut the client if it has taken too long over what is awaited of it; `now` is the clock's time."""
        unread = self.transport.get_write_buffer_size()
        if unread:
            # The kernel takes more only once much of its own has gone, so that counts as well.
            unread += self._in_kernel(TIOCOUTQ)
            if self._watch.reads_too_slowly(now, unread, self.deadlines):
                self._reset()
            return
        match self._too_slow(now):
            case TooSlow.HEAD:
                detail = f"The header fields took longer than {self.deadlines.head:g} s. Send them at once."
                self._reject(RejectedRequest(HTTPStatus.REQUEST_TIMEOUT, detail))
            case TooSlow.BODY:
                detail = f"The body came slower than {self.deadlines.rate} bytes/s. Send it faster."
                self._reject(RejectedRequest(HTTPStatus.REQUEST_TIMEOUT, detail))
            case TooSlow.REQUEST:
                # Silently: a client that is just sending would take a 408 for the answer to that.
                self._finish()
            case TooSlow.CLOSE:
                self.transport.abort()

    def _too_slow(self, now: float) -> TooSlow | None:
        progress = Progress(
            self.stage, self._requests, self.body_bytes, self._awaits_client(), self._draining
        )
        return self._watch.too_slow(now, progress, self.deadlines)

    def _awaits_client(self) -> bool:
        if self.flow.read_paused or self.transport.is_closing():
            return False
        return self.stage != "idle" or not self._answering()

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
        return self.cycle is not None and self.cycle.response_complete, self._watch.since

    def make_room(self) -> None:
        """Close now, with a word to who has begun a request."""
        if self.stage in ("head", "body"):
            detail = "The request was not finished when others needed its place."
            self._reject(RejectedRequest(HTTPStatus.REQUEST_TIMEOUT, detail))
        self.connections.discard(self)
        if self.transport.get_write_buffer_size():
            self._reset()
        else:
            self.transport.close()


def _ours(state: ServerState) -> list[Connection]:
    """List the connections of a server; the list stays as it is while some of them end."""
    return [one for one in state.connections if isinstance(one, Connection)]


def _make_room(state: ServerState, most: int) -> None:
    """Close the longest unfinished connections beyond `most`."""
    excess = len(state.connections) - most
    if excess > 0:
        unfinished = [one for one in _ours(state) if one.unfinished]
        for one in heapq.nsmallest(excess, unfinished, key=lambda one: one.seniority):
            one.make_room()


def _rejection_of(error: HttpParserError) -> RejectedRequest:
    """Return why the parser stopped: a rejection of ours, or its own words."""
    rejection = error.__context__
    if isinstance(rejection, RejectedRequest):
        return rejection
    callback = isinstance(error, HttpParserCallbackError)
    return malformed("its target cannot be read." if callback else f"{str(error).rstrip('.')}.")
