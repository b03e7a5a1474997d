"""Program of the network process, which `NetworkProcess` starts with its options as JSON."""

import asyncio
import ctypes
import json
import logging.config
import os
import signal
import socket
import sys
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Self

from model.malloc import keep_freed_memory
from service.settings import LogFormat, LogLevel
from service.telemetry.logs import configuration

from .network_server import NetworkServer

_PR_SET_PDEATHSIG = 1
"""Option number from Linux's prctl.h."""

THREAD_SWITCH_INTERVAL_S = 0.0005
"""Seconds that a thread may hold the interpreter lock while another waits, so that the event loop answers soon."""


@dataclass(frozen=True)
class Options:
    """Options of the network process.

    `listener` and `lifeline` are file descriptors: the listening socket, and a pipe whose other end only the process
    `parent` has open. `open_encoder` is the function that loads encoders, as "module:name".
    """

    folder: str
    listener: int
    lifeline: int
    parent: int
    open_encoder: str
    log_level: LogLevel
    log_format: LogFormat

    @property
    def arguments(self) -> list[str]:
        """Arguments of the Python interpreter that start the program with these options."""
        return ["-P", "-m", __name__, json.dumps(asdict(self))]

    @classmethod
    def read(cls, argument: str) -> Self:
        """Read the options from the last of `arguments`."""
        return cls(**json.loads(argument))


def main() -> None:
    """Run the network process until its parent ends or closes the pipe."""
    options = Options.read(sys.argv[1])
    # The parent ends this process, after its last job. Ctrl-C and service managers signal both at the same time.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":  # elsewhere, only the end of the pipe tells that the parent was killed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == options.parent:
        sys.setswitchinterval(THREAD_SWITCH_INTERVAL_S)
        keep_freed_memory()
        logging.config.dictConfig(configuration(options.log_level, options.log_format))
        module, _, name = options.open_encoder.partition(":")
        server = NetworkServer(getattr(import_module(module), name), Path(options.folder))
        listener = socket.socket(fileno=options.listener)
        asyncio.run(server.run(listener, options.lifeline))


if __name__ == "__main__":
    main()
