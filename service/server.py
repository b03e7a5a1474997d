"""`rcml serve`: listen, open the index, say where it can be reached, and answer until stopped."""

import socket
from collections.abc import Callable, Sequence

import uvicorn

from model.errors import InputError
from model.terminal import say

from .app import create_app
from .engine import Engine, OpenEncoder, open_encoder
from .loading import Loading
from .settings import ServeConfig


def serve(
    config: ServeConfig,
    greeting: Callable[[Engine, str], Sequence[str]] = lambda engine, url: (),
    open_encoder: OpenEncoder = open_encoder,
) -> str:
    """Serve until interrupted; returns a closing line.

    Once the engine is open, `greeting` is given it and the server's URL; its lines are shown to the user.

    Raises:
        InputError: the address cannot be listened on.
        ArtifactError: the index or its checkpoint cannot be opened.
    """
    listener = _listen(config.host, config.port)
    url = _url(config.host, listener.getsockname()[1])
    outcome: list[Loading] = []

    def on_loaded(loading: Loading) -> None:
        outcome.append(loading)
        if loading.failure is not None:
            server.should_exit = True
            return
        for line in (*_welcome(loading.engine, url), *greeting(loading.engine, url)):
            say(line)

    app = create_app(config, open_encoder, on_loaded)
    server = uvicorn.Server(uvicorn.Config(app, log_level=config.log_level))
    say(f"Listening at {url} and opening {config.index} ...")
    with listener:
        server.run(sockets=[listener])
    if outcome and outcome[0].failure is not None:
        raise outcome[0].failure
    return "Stopped."


def _listen(host: str, port: int) -> socket.socket:
    """Bind before anything slow is done, so that a taken port is known at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise InputError(
            f"Cannot listen on {host} port {port}: {reason}. Stop what uses it, or choose another with "
            "--host and --port."
        ) from None


def _welcome(engine: Engine, url: str) -> list[str]:
    items, relations = len(engine.index), len(engine.index.relations)
    return [
        f"Serving {items} items under {relations} relations at {url} ({engine.device}).",
        f"Open {url} in a browser to explore it, {url}/docs for the API. Ctrl-C stops it.",
    ]


def _url(host: str, port: int) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
