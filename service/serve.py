"""Server of `rcml serve`: binds the address, opens the index, prints the URL, and serves requests until stopped."""

import gc
import logging
import logging.config
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp

from model.console import say
from model.errors import InputError, RcmlError
from service.engine.engine import Engine, OpenEncoder
from service.engine.network_process.messages import pack_error
from service.engine.network_process.network_process import NetworkProcess
from service.http.limits import SHOPS, Deadlines, Limits
from service.http.server import Server
from service.lifecycle.engine_holder import EngineHolder
from service.middleware.api_keys import Keys
from service.shared.counters import Counter, SharedCounters
from service.shared.worker import Worker, WorkerPlace, create_shared
from service.telemetry.logs import BANNER_LOGGER, chosen_format, configuration, escaped, logger
from service.telemetry.prometheus import reserve_counts, share_counts
from service.telemetry.tracing import open_tracer_provider
from service.workers.supervisor import Supervisor

from .app import body_limits, create_app
from .settings import LogFormat, ServeConfig
from .shops import Shops

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

Banner = Callable[[Engine, str], Sequence[str]]
"""Function that returns lines for the user about an engine and the URL at which it is served."""

MEMORY_FOLDER = Path("/dev/shm")
"""Folder in memory on Linux. Elsewhere, workers share files in the folder for temporary files."""

STUCK_LOOP_S = 30.0
"""Minimum time in seconds after which a worker is replaced if its event loop stands still."""

THREAD_SWITCH_INTERVAL_S = 0.0005
"""Seconds that a thread may hold the interpreter lock while another thread waits for it; Python's default is 0.005.

A search takes less than 0.005 s. With Python's default, it could wait for the lock longer than it runs.
"""

YOUNG_OBJECTS = 50_000
"""Number of new objects after which the garbage collector looks for cycles; Python's default is 700.

Requests leave no cycles, even if they fail (tested). With the default, 2,500 connections at ten times the capacity of
the network made the collector hold the event loop for a sixth of the time.
"""


def no_banner(engine: Engine, url: str) -> Sequence[str]:
    """Return no lines."""
    return ()


def serve(config: ServeConfig, banner: Banner = no_banner, open_encoder: OpenEncoder | None = None) -> str:
    """Serve until interrupted and return a closing line.

    The network runs in a process of its own. If `open_encoder` is given, it opens the network instead.

    Once the engine is open, `banner` is called with the engine and the URL of the server. The lines that it returns
    are shown to the user.

    With several workers, `banner` and `open_encoder` must be importable by name, because each worker imports them.

    Raises:
        InputError: the address cannot be bound, an API key is invalid, a required API key is missing, or tracing is
            enabled but OpenTelemetry is not installed; or the options do not allow several workers.
        ArtifactError: the index or its checkpoint cannot be opened.
    """
    if config.workers > 1:
        return _serve_with_workers(config, banner, open_encoder)
    tracer_provider = open_tracer_provider() if config.trace else None
    show = _line_writer(config.log_format)
    outcome: list[EngineHolder] = []
    counters = SharedCounters.alone()

    def on_loaded(shop: str, holder: EngineHolder) -> None:
        outcome.append(holder)
        if holder.failure is not None:
            if shop:
                logger.error("The shop %s cannot be opened: %s", shop, escaped(holder.failure))
            server.should_exit = len(outcome) == count and not any(one.ready for one in outcome)
            return
        counters.set(Counter.SERVING, 1)
        limit_garbage_collection()
        at = f"{url}{SHOPS}{shop}" if shop else url
        for line in (*addresses(holder.engine, at), *banner(holder.engine, at)):
            show(line)

    with closed_on_sigterm(), ExitStack() as stack:
        if tracer_provider is not None:
            stack.callback(tracer_provider.shutdown)
        listener = stack.enter_context(_listen(config.host, config.port))
        url = _url(config.host, listener.getsockname()[1])
        if open_encoder is None:
            process = stack.enter_context(NetworkProcess(config.log_level, config.log_format))
            open_encoder = process.opener(config.worker_patience)
        app, count = _application(config, open_encoder, on_loaded, tracer_provider, counters)
        server = server_of(app, config, outcome, counters=counters)
        show(f"Listening on {url} and opening {config.index} ...")
        server.run(sockets=[listener])
    for holder in outcome:
        if holder.failure is not None and not any(one.ready for one in outcome):
            raise holder.failure
    return "Stopped."


def _serve_with_workers(config: ServeConfig, banner: Banner, open_encoder: OpenEncoder | None) -> str:
    """Serve as `serve` does, with several processes that look like one server."""
    if config.shops:
        raise InputError(
            "--shops cannot be used with --workers, because all shops share one process. Omit --workers, or start a "
            "server for each shop."
        )
    if config.keys is not None and not config.keys.is_file():
        Keys.open(config)  # a pipe can be read only once, so it is not checked here
        raise InputError(
            f"--keys {config.keys} is not a plain file, so several workers cannot read it. Write the keys to a file, "
            "or set RCML_READ_KEYS and RCML_ADMIN_KEYS."
        )
    Keys.open(config)  # report an invalid or missing key once
    if config.trace:
        open_tracer_provider().shutdown()  # report a missing package once
    logging.config.dictConfig(configuration(config.log_level, config.log_format))
    show = _line_writer(config.log_format)
    listener = _listen(config.host, config.port)
    show(f"Listening on {_url(config.host, listener.getsockname()[1])} and opening {config.index} ...")
    received = None
    with closed_on_sigterm(), ExitStack() as stack:
        stack.enter_context(listener)
        if open_encoder is None:
            process = stack.enter_context(NetworkProcess(config.log_level, config.log_format))
            open_encoder = process.opener(config.worker_patience)
        received = Supervisor(
            partial(_run_worker, config, banner, open_encoder),
            config.workers,
            listener,
            stack.enter_context(_shared_folder(config.workers)),
            show,
            config.shutdown_seconds,
            max(config.worker_patience, STUCK_LOOP_S),
        ).run()
    if received is not None:
        _end_by(received)
    return "Stopped."


@contextmanager
def _shared_folder(workers: int) -> Iterator[Path]:
    """Yield a private folder with what the workers share, and remove it at the end.

    Raises:
        InputError: The folder cannot be created, or there is no room for its files.
    """
    where = str(MEMORY_FOLDER) if MEMORY_FOLDER.is_dir() else None
    with ExitStack() as stack:
        try:
            folder = Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="rcml-", dir=where, ignore_cleanup_errors=True)
                )
            )
            create_shared(folder, workers)
            for number in range(workers):
                reserve_counts(folder, number)
        except OSError as error:
            raise InputError(
                f"The workers cannot share memory in {where or 'the folder for temporary files'}: {error.strerror}. "
                "Make it writable, with room for 3 MiB for each worker, or start fewer workers."
            ) from None
        yield folder


def _run_worker(
    config: ServeConfig,
    banner: Banner,
    open_encoder: OpenEncoder,
    place: WorkerPlace,
    listener: socket.socket,
) -> None:
    """Run a worker: serve requests until the parent sends SIGTERM or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes, and the parent acts on it
    share_counts(place.folder, place.number)
    worker = Worker(place)
    log = configuration(config.log_level, config.log_format, place.number)
    logging.config.dictConfig(log)
    url = _url(config.host, listener.getsockname()[1])
    loaded: list[EngineHolder] = []

    def on_loaded(holder: EngineHolder) -> None:
        if holder.ready:
            loaded.append(holder)
            limit_garbage_collection()
            lines = [*addresses(holder.engine, url), *banner(holder.engine, url)]
            worker.channel.send("started", lines=lines)

    tracer_provider = None
    try:
        tracer_provider = open_tracer_provider() if config.trace else None
        app = create_app(config, open_encoder, on_loaded, tracer_provider, worker=worker)
        server_of(app, config, loaded, worker).run(sockets=[listener])
    except RcmlError as error:
        worker.channel.send("failed", epoch=0, error=pack_error(error), message=str(error))
    finally:
        if tracer_provider is not None:
            tracer_provider.shutdown()


def _application(
    config: ServeConfig,
    open_encoder: OpenEncoder,
    on_loaded: Callable[[str, EngineHolder], None],
    tracer_provider: "TracerProvider | None",
    counters: SharedCounters,
) -> tuple[ASGIApp, int]:
    """Create the application and return it with the number of its indexes; `on_loaded` gets a shop's name, or ""."""
    if config.shops:
        shops = Shops(config, open_encoder, on_loaded, tracer_provider, counters)
        return shops, len(shops)
    return create_app(config, open_encoder, partial(on_loaded, ""), tracer_provider, counters=counters), 1


def server_of(
    app: ASGIApp,
    config: ServeConfig,
    loaded: Sequence[EngineHolder] = (),
    worker: Worker | None = None,
    counters: SharedCounters | None = None,
) -> Server:
    """Create the server of an application; on a stop signal, the engines in `loaded` stop accepting work.

    `worker` is this process, if the server has several. Otherwise `counters` are those that the application shows.
    """
    return _Server(
        app,
        Limits(body_limits(config), connections=config.max_connections),
        Deadlines(idle=config.keep_alive_seconds, grace=config.shutdown_seconds),
        loaded,
        log_level=config.log_level,
        log_config=configuration(
            config.log_level, config.log_format, None if worker is None else worker.number
        ),
        counters=counters if worker is None else worker.counters,
    )


class _TerminatedError(BaseException):
    """SIGTERM, after which the process ends as soon as everything is closed."""


@contextmanager
def closed_on_sigterm() -> Iterator[None]:
    """Close the contexts within this one if the process receives SIGTERM, and let the process then end by SIGTERM.

    Process 1 of a container goes on after the context instead.

    uvicorn handles SIGTERM while it serves, and sends it to the process again when all requests are answered.
    """
    if current_thread() is not main_thread():  # only the main thread can handle signals
        yield
        return

    def terminate(sig: int, frame: FrameType | None) -> None:
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except _TerminatedError:
        signal.signal(signal.SIGTERM, before)
        _end_by(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def _end_by(received: int) -> None:
    """End this process by a signal, except process 1 of a container, which ends by returning: no signal ends it."""
    if os.getpid() != 1:
        signal.raise_signal(received)


def limit_garbage_collection() -> None:
    """Exclude the objects created at startup from garbage collection, and collect others less often.

    Traversing the objects of the startup takes 0.1 s.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


class _Server(Server):
    """Server whose engines stop accepting work as soon as it receives a stop signal."""

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        deadlines: Deadlines,
        loaded: Sequence[EngineHolder],
        **options: Any,
    ) -> None:
        super().__init__(app, limits, deadlines, **options)
        self._loaded = loaded

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        sys.setswitchinterval(THREAD_SWITCH_INTERVAL_S)
        super().run(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGINT and self.counters.count > 1:
            return  # Ctrl-C reaches all processes, and the parent acts on it
        self.counters.set(Counter.SERVING, 0)
        for holder in self._loaded:
            holder.stop()
        super().handle_exit(sig, frame)


def _line_writer(log_format: LogFormat) -> Callable[[str], None]:
    """Return a function that writes lines regardless of the log level, as plain text or in the JSON log format."""
    if chosen_format(log_format) == "text":
        return say
    return logging.getLogger(BANNER_LOGGER).info


def _listen(host: str, port: int) -> socket.socket:
    """Bind the address before any slow work, so that a port in use is reported immediately."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise InputError(
            f"Cannot listen on {host} port {port}: {reason}. Stop the program that uses it, or choose "
            "another address with --host and --port."
        ) from None


def addresses(engine: Engine, url: str) -> list[str]:
    """Return the lines that tell where the index is served, and on what devices."""
    items, relations = len(engine.index), len(engine.index.relations)
    lines = [
        f"Serving {items} items and {relations} relations at {url} ({engine.device}, towers in {engine.towers})."
    ]
    if "cuda" in engine.device + engine.vectors_device:
        lines.append(f"{engine.vectors_device[:1].upper()}{engine.vectors_device[1:]}.")
    return [
        *lines,
        f"Open {url} in a browser to explore the index, or {url}/docs for the API. Press Ctrl-C to stop.",
    ]


def _url(host: str, port: int) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
