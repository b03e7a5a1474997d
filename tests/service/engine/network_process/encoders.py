"""Encoders that tests run in the network process; the text of a job says what happens to it."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from model.embeddings.encoding import Encoding
from service.engine.network_process.network_process import NetworkProcess
from tests.indexes.fakes import FakeEncoder


class ObedientEncoder(FakeEncoder):
    """Encoder that obeys a text such as "wait FILE", "sleep 0.3", "kill" or "bug".

    The `text_share` of an encoding is the number of items that were encoded together.
    """

    def read_items(
        self, texts: Sequence[str], pictures: Sequence[Image.Image | None], tokens: bool = False
    ) -> Callable[[], Encoding]:
        for text in texts:
            match text.split():
                case ["wait", file]:
                    while not Path(file).exists():
                        time.sleep(0.001)
                case ["sleep", seconds]:
                    time.sleep(float(seconds))
                case ["kill"]:
                    os.kill(os.getpid(), signal.SIGKILL)
                case ["bug"]:
                    raise ZeroDivisionError("password=hush")
        encode = super().read_items(texts, pictures, tokens)
        return lambda: replace(encode(), text_share=float(len(texts)))


def open_obedient(*how: object) -> ObedientEncoder:
    return ObedientEncoder()


def open_deadly(*how: object) -> ObedientEncoder:
    """Kill the network process while it opens a checkpoint."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def network_process(function: Callable[..., object] = open_obedient) -> NetworkProcess:
    """Start a network process that opens checkpoints with a function of this module."""
    return NetworkProcess("critical", open_encoder=f"{__name__}:{function.__name__}")
