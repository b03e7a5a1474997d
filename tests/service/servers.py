"""Servers that run in threads for client tests: the real application, and one that sends scripted responses."""

import multiprocessing
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import cast

import httpx
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Scope

from model.embeddings.encoder_protocol import ItemEncoder
from service.app import create_app
from service.engine.engine import OpenEncoder
from service.engine.network_process.network_process import NetworkProcess
from service.http.dispatch import Answered, FastAnswer, FastPath
from service.http.limits import Deadlines
from service.http.server import Server
from service.requests.direct_routes import DirectRoutes
from service.serve import closed_on_sigterm, limit_garbage_collection, server_of
from service.settings import ServeConfig
from tests.indexes.fakes import FakeEncoder

Scripted = tuple[int, dict[str, str], bytes] | None
"""Scripted response: status, headers and body; None closes the connection without a response."""


@contextmanager
def served(config: ServeConfig) -> Iterator[str]:
    """Run a server in a thread and yield its base URL once the server is ready."""
    app = create_app(config, lambda *_: FakeEncoder())
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        address = "http://{}:{}".format(*server.servers[0].sockets[0].getsockname())
        while httpx.get(f"{address}/readyz", timeout=600).status_code != 200:
            time.sleep(0.01)
        yield address
    finally:
        server.should_exit = True
        thread.join()


class CountedFastPath:
    """Fast path of a server whose answers are counted. It counts those on connections that open afterwards."""

    def __init__(self, server: Server) -> None:
        self.answers = 0
        self._path: FastPath = server.lifespan.state["fast_path"]
        server.lifespan.state["fast_path"] = self

    def take(self, scope: Scope, body: bytes | bytearray, answered: Answered) -> bool:
        """Let the fast path take the request, and count its answer."""

        def counted(answer: FastAnswer | None) -> None:
            self.answers += answer is not None
            answered(answer)

        return self._path.take(scope, body, counted)


@contextmanager
def served_here(
    app: ASGIApp, short_ways: bool = True, deadlines: Deadlines = Deadlines()
) -> Iterator[tuple[Server, httpx.Client]]:
    """Run the server of `rcml serve` in a thread; yield it and a client once the application is ready.

    Without `short_ways`, every request is routed by the framework.
    """
    if not short_ways:
        assert isinstance(app, FastAPI)
        app.user_middleware = [
            one for one in app.user_middleware if cast(object, one.cls) is not DirectRoutes
        ]
    server = Server(app, deadlines=deadlines, log_level="error", log_config=None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.005)
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            while httpx.get(f"{address}/readyz", timeout=600).status_code != 200:
                time.sleep(0.01)
            if not short_ways:
                server.lifespan.state["fast_path"] = None
            with httpx.Client(base_url=address, timeout=600) as client:
                yield server, client
        finally:
            server.should_exit = True
            thread.join()


def _serve(config: ServeConfig, own_network: bool, pipe: Connection) -> None:
    """Run a server as `rcml serve` does: send its port through `pipe`, then serve until terminated."""
    with closed_on_sigterm(), ExitStack() as stack:
        opened: OpenEncoder = lambda *_: cast(ItemEncoder, FakeEncoder())  # noqa: E731
        if own_network:
            opened = stack.enter_context(NetworkProcess("error")).opener(config.worker_patience)
        app = create_app(config, opened, lambda _: limit_garbage_collection())
        listener = stack.enter_context(socket.create_server((config.host, 0)))
        pipe.send(listener.getsockname()[1])
        server_of(app, config).run(sockets=[listener])


@contextmanager
def served_apart(config: ServeConfig, own_network: bool = False) -> Iterator[str]:
    """Run the server of `rcml serve` in a process of its own; yield its base URL once it is ready.

    With `own_network`, the network of the checkpoint runs in a network process; otherwise there is a stand-in.
    """
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(config, own_network, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        address = f"http://{config.host}:{pipe.recv()}"
        while httpx.get(f"{address}/readyz", timeout=600).status_code != 200:
            time.sleep(0.01)
        yield address
    finally:
        process.terminate()
        process.join()


class Flaky(ThreadingHTTPServer):
    """Server that sends scripted responses and records the requests."""

    daemon_threads = True

    def __init__(self, script: Sequence[Scripted]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = list(script)
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []


class _Handler(BaseHTTPRequestHandler):
    server: Flaky

    def do_GET(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self.server.paths.append(self.path)
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        if (answer := self.server.script.pop(0)) is None:
            return
        status, headers, body = answer
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def flaky(*script: Scripted) -> Iterator[tuple[Flaky, str]]:
    with Flaky(script) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
