"""Tests of the load that several client processes share."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from benchmarks.rig.load.http_load import Outcome, request
from benchmarks.rig.load.load_processes import Clients


class _Server(ThreadingHTTPServer):
    """Server that counts requests by their bodies, and refuses those with the body `no`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: Counter[bytes] = Counter()
        self.connections = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies[body] += 1
        self.send_response(429 if body == b"no" else 200)
        self.send_header("Content-Length", "2")
        if body == b"no":
            self.send_header("Retry-After", "1")
        if body == b"last":
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments: object) -> None:
        """Write nothing."""


@contextmanager
def _serve() -> Iterator[_Server]:
    with _Server() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    with Clients(2) as clients:
        yield clients


def test_closed_loop_counts_the_responses_of_all_processes(clients: Clients) -> None:
    with _serve() as server:
        messages = [request("/", body) for body in (b"yes", b"no")]
        outcome = clients.closed_loop(server.server_port, messages, 5, 0.2)
        assert outcome.statuses == {200: server.bodies[b"yes"], 429: server.bodies[b"no"]}
        assert outcome.retry_after == server.bodies[b"no"]
        assert server.connections == 5


def test_open_loop_sends_each_request_once(clients: Clients) -> None:
    with _serve() as server:
        messages = [request("/", b"%d" % number) for number in range(60)]
        outcome = clients.open_loop(server.server_port, messages, 100, 0.6, opened=3)
        assert server.bodies == Counter(b"%d" % number for number in range(60))
        assert outcome.statuses == {200: 60}
        assert len(outcome.late) == 60


def test_connections_that_the_server_closes_are_replaced(clients: Clients) -> None:
    with _serve() as server:
        outcome = clients.closed_loop(server.server_port, [request("/", b"last")], 2, 0.2)
        assert outcome.statuses == {200: server.bodies[b"last"]}
        assert server.connections >= outcome.statuses[200] > 2


def test_merged_outcome_keeps_every_response_and_adds_the_cores() -> None:
    parts = [
        Outcome(2.0, {200: [0.1, 0.3]}, 1, [0.01], 0.5),
        Outcome(2.0, {200: [0.2], 0: [0.0]}, 0, [], 0.25),
    ]
    whole = Outcome.merged(parts)
    assert whole.took == {200: [0.1, 0.3, 0.2], 0: [0.0]}
    assert (whole.rate, whole.retry_after, whole.late, whole.client_cores) == (1.5, 1, [0.01], 0.75)
