"""Protocol of a client connection: limits on a client's time and memory, and the ways in which a connection closes.

uvicorn parses requests, sends responses and keeps connections alive. However, it waits forever for an incomplete
request and for a response that the client does not read. `Connection` is uvicorn's protocol with limits: it
disconnects a slow client and rejects a malformed request with a problem document. If the rejected client is still
sending, `Connection` closes only after the client has had time to read the reason (RFC 9112, 9.6).

`server.py` opens connections and sweeps them, `request_head.py` checks request heads, `slow_clients.py` detects slow
clients, `dispatch.py` passes complete requests on, and `limits.py` defines all limits.
"""

import asyncio
import heapq
import socket
from http import HTTPStatus
from struct import pack
from termios import FIONREAD, TIOCOUTQ
from typing import Any
from urllib.parse import quote

import uvicorn
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.server import ServerState

from service.problems.kinds import Kind

from .admission import SCOPE_BEGAN
from .connection_config import ConnectionConfig
from .dispatch import Dispatch
from .kernel import bytes_in_kernel, kernel_age
from .limits import FRAMING_RATIO, MAX_FRAMING_BYTES
from .raw_problem import raw_problem
from .request_head import (
    BodyMode,
    RejectedRequest,
    RequestHead,
    long_body,
    long_head,
    malformed,
    parser_rejection,
)
from .slow_clients import Progress, ProgressWatch, Stage, TooSlow


class Connection(Dispatch):
    """Protocol of one client connection, with limits."""

    # Slots save memory: CPython stores the attribute names of all instances of a class in one shared table of at most
    # 30 names, and uvicorn's class already has nearly 30 attributes.
    __slots__ = (
        "_deaf", "_last_answer", "_latest", "_paused", "_requests", "_watch", "_wire", "body_bytes", "deadlines",
        "stage",
    )  # fmt: skip

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.deadlines = self._settings.deadlines
        self.stage: Stage = "idle"
        self._deaf = False  # whether further input is discarded
        self._last_answer: bytes | None = None  # sent after the responses to earlier requests
        self._paused = False  # whether data may have waited because reading was paused
        self._requests = 0
        self._latest = 0  # bytes in the latest call of `data_received`
        # Bytes received after the call of `data_received` in which the current head or body began.
        self._wire = 0
        self.body_bytes = 0
        self._watch = ProgressWatch(self.clock())

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Open the connection. If too many are open, the oldest incomplete ones (see `unfinished`) are closed."""
        super().connection_made(transport)
        if self._settings.count(len(self.connections)) > 0:
            # Wait until the loop has read what the newly accepted clients have sent.
            self.loop.call_soon(_make_room, self.server_state, self._settings)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application that the client has left, even if the client has sent further requests since."""
        super().connection_lost(exc)
        self._settings.count(len(self.connections))
        if self._begun is not None and not self._begun.response_complete:
            self._begun.disconnected = True
            self._begun.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Parse the received data, and reject the request if it is malformed or exceeds a limit."""
        if self._deaf:
            self._settings.discards.pause(self.transport, self.flow)
            return
        self._latest = len(data)
        self._wire += self._latest
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
            return
        except HttpParserError as error:
            self._reject(parser_rejection(error))
            return
        if self.stage == "head" and self._wire > self.limits.head:
            self._reject(long_head(self.url, self.limits))
        elif self.stage == "body" and self._wire > MAX_FRAMING_BYTES + FRAMING_RATIO * self.body_bytes:
            detail = "The body is mostly framing. Send larger chunks, without extensions."
            self._reject(RejectedRequest(HTTPStatus.BAD_REQUEST, detail))
        elif self._draining:
            self._say_last()
        if self.stage == "body" and self.cycle.response_complete:
            self._settings.discards.pause(self.transport, self.flow)

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parse a request again without its offer to switch protocols (RFC 9110, 7.8).

        After such an offer, the parser assumes that no body follows. However, Java's HttpClient offers HTTP/2 with its
        first request, even if the request has a body.
        """
        head = [b"%b %b HTTP/1.1\r\n" % (self.parser.get_method(), self.url)]
        head += [b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade"]
        self.parser = HttpRequestParser(self)
        self.data_received(b"".join([*head, b"\r\n", rest]))

    # Parser callbacks.

    def on_message_begin(self) -> None:
        """Start a new request head."""
        super().on_message_begin()
        late = self._settings.looks.may_be_late(self.loop) or self._paused or not self._requests
        age = kernel_age(self.transport) if late else 0.0
        self._paused = False
        self.scope[SCOPE_BEGAN] = self.clock() - age  # type: ignore[literal-required]
        self.stage = "head"
        self._wire = 0

    def on_headers_complete(self) -> None:
        """Check the head and start handling the request.

        Raises:
            RejectedRequest: The head is not acceptable. The parser then raises its own error, whose `__context__` is
                the `RejectedRequest`.
        """
        head = self._head()
        mode = head.check(self.limits, self._wire + self._latest, len(self.pipeline))
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise malformed("CONNECT is only for proxies.")
            return
        self._whole = head.is_short(mode) and not self.expect_100_continue
        if self._admission is not None and not self._whole:
            self._admission.check(head.method, self.limits.bodies.route_path(head.path))
        super().on_headers_complete()
        if mode is BodyMode.CHUNKED:
            # Trailers may be discarded (RFC 9110, 6.5.1), and must not be mistaken for headers. The limit of the body
            # depends on its media type.
            self.headers = [(name, value) for name, value in self.headers if name == b"content-type"]
        self.stage = "body"
        self._requests += 1
        self._wire = self.body_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Count the bytes of the body and pass them on.

        Raises:
            RejectedRequest: The body is longer than its limit.
        """
        self.body_bytes += len(body)
        if self.body_bytes > self.limits.bodies.body:
            # Once the response is complete, nothing reads the rest of the body, so the smallest body limit applies to
            # every route.
            limits, answered = self.limits, self.cycle.response_complete
            longest = limits.bodies.body if answered else self._head().longest_body(limits)
            if self.body_bytes > longest:
                raise long_body(longest)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Complete the request."""
        if self.stage == "body":  # otherwise the request offers an upgrade and is parsed again
            super().on_message_complete()
            self.stage = "idle"
            if self._incomplete:
                self._incomplete = False
                self._start_asgi_task(self.cycle, self.app)

    def _head(self) -> RequestHead:
        method = self.parser.get_method().decode("latin-1")
        return RequestHead(method, self.url, self.parser.get_http_version(), self.headers)

    # Responses, and closing the connection.

    def on_response_complete(self) -> None:
        """Do what uvicorn does after a response, but start no keep-alive timer: the sweep finds idle connections."""
        self.server_state.total_requests += 1
        self._watch.forget_reading()
        if self.transport.is_closing():
            return
        self._paused = self._paused or self.flow.read_paused
        self.flow.resume_reading()
        if self.pipeline:  # not at once, as the answers to all further requests would be part of this one
            self.loop.call_soon(self._begin_next)
        elif self._last_answer is not None:
            self._finish(self._last_answer)

    def _begin_next(self) -> None:
        if self.pipeline and not self.transport.is_closing():
            self._start_asgi_task(*self.pipeline.pop())

    def shutdown(self) -> None:
        """Close the connection after its next response; wait only briefly for a request if none is pending."""
        self._draining = True
        self._watch.restart(self.clock())
        self._say_last()

    def _say_last(self) -> None:
        """Close after the last pending response, unless a request is partly received or data waits in the kernel."""
        if self.stage == "idle" and self._answering() and not bytes_in_kernel(self.transport, FIONREAD):
            self.cycle.keep_alive = False

    def _answering(self) -> bool:
        return bool(self.pipeline) or (self.cycle is not None and not self.cycle.response_complete)

    def _reject(self, rejection: RejectedRequest) -> None:
        """Send a problem document for the request being received, after all earlier responses, and close."""
        if self._deaf:
            return
        self._deaf = True
        answer = self._problem(rejection)
        self.logger.info("Rejected a request: %d %s", rejection.status, rejection.detail)
        if self.stage == "body" and not self.pipeline:
            started = self.cycle.response_started
            if not self.cycle.response_complete:  # report a disconnect to the application
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
        """Send a last response and close the connection for writing.

        Reading goes on for a moment, because unread data would cause a reset and the client could lose the response.
        """
        self.stage = "closed"
        self._deaf = True
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        self.transport.write(answer)
        end = self.transport.write_eof if self.transport.can_write_eof() else self.transport.close
        end()

    def _reset(self) -> None:
        """Reset the connection, which also discards the sent data that is still in the kernel's queue."""
        client = self.transport.get_extra_info("socket")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
        self.transport.abort()

    def _problem(self, rejection: RejectedRequest) -> bytes:
        known = self.stage in ("head", "body") and len(self.url) <= self.limits.target
        instance = quote(self.url.partition(b"?")[0]) if known else ""
        kind = rejection.kind or Kind.of(rejection.status)
        again = rejection.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)
        retry_after = rejection.retry_after if again else None
        return raw_problem(kind, rejection.detail, instance, self.server_state.default_headers, retry_after)

    # The sweep.

    def pause_writing(self) -> None:
        """Pause writing, and restart the measurement of how fast the client reads."""
        super().pause_writing()
        self._watch.forget_reading()

    def resume_writing(self) -> None:
        """Resume writing, and restart the measurement of how fast the client reads."""
        super().resume_writing()
        self._watch.forget_reading()

    def sweep(self, now: float) -> None:
        """Disconnect the client if it has taken too long; `now` is the time of the server's clock."""
        unread = self.transport.get_write_buffer_size()
        if unread:
            # The buffer shrinks only after much of the kernel's queue has drained, so count the bytes in both.
            unread += bytes_in_kernel(self.transport, TIOCOUTQ)
            if self._watch.reads_too_slowly(now, unread, self.deadlines):
                self._reset()
            return
        match self._too_slow(now):
            case TooSlow.HEAD:
                detail = f"The header fields took longer than {self.deadlines.head:g} s to arrive. Send them faster."
                self._reject(RejectedRequest(HTTPStatus.REQUEST_TIMEOUT, detail))
            case TooSlow.BODY:
                detail = f"The body arrived at less than {self.deadlines.rate} bytes/s. Send it faster."
                self._reject(RejectedRequest(HTTPStatus.REQUEST_TIMEOUT, detail))
            case TooSlow.REQUEST:
                # Send no 408, because a client that starts a request at this moment would take it as the response.
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

    # The limit on connections.

    @property
    def unfinished(self) -> bool:
        """Whether the connection counts as incomplete.

        It does, unless a completely received request is still waiting for its response.
        """
        match self.stage:
            case "closed":
                return True
            case "body":
                return not self.pipeline
            case _:
                return not self._answering()

    @property
    def seniority(self) -> tuple[bool, float]:
        """Sort key of the order in which connections are closed, smallest first.

        Connections on which the latest complete request head has been answered come last. Connections on which it has
        not been answered, or on which no head is complete yet, come first. Within each group, the client that has made
        no progress for the longest time comes first.
        """
        return self.cycle is not None and self.cycle.response_complete, self._watch.since

    def make_room(self) -> None:
        """Close the connection now; a client that has started a request receives a problem document."""
        if self.stage in ("head", "body"):
            detail = (
                "The request was still incomplete when the server closed the connection to accept another client. "
                "Send it again."
            )
            self._reject(RejectedRequest(HTTPStatus.REQUEST_TIMEOUT, detail))
        self.connections.discard(self)
        if self.transport.get_write_buffer_size():
            self._reset()
        else:
            self.transport.close()


def connections_of(state: ServerState) -> list[Connection]:
    """Return the server's connections as a new list, so that some of them can close during an iteration."""
    return [one for one in state.connections if isinstance(one, Connection)]


def _make_room(state: ServerState, settings: ConnectionConfig) -> None:
    """Close the oldest incomplete connections if too many connections are open."""
    excess = settings.count(len(state.connections))
    if excess > 0:
        unfinished = [one for one in connections_of(state) if one.unfinished]
        for one in heapq.nsmallest(excess, unfinished, key=lambda one: one.seniority):
            one.make_room()
