"""Logs of a training's figures while it runs: TensorBoard always, Weights & Biases or trackio on request."""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from model.config import Tracker, TrainConfig
from model.console import say
from model.errors import InputError


class Log(Protocol):
    """A function that logs the figures of a step."""

    def __call__(self, step: int, figures: Mapping[str, float]) -> None: ...


@contextmanager
def open_logs(config: TrainConfig, folder: Path, first_step: int) -> Iterator[Log]:
    """One log that writes to all that were asked for; `folder` is TensorBoard's."""
    with ExitStack() as stack:
        logs = [stack.enter_context(_tensorboard(folder, first_step))]
        logs += [stack.enter_context(_hosted(name, config)) for name in config.track]

        def log(step: int, figures: Mapping[str, float]) -> None:
            for each_log in logs:
                each_log(step, figures)

        yield log


@contextmanager
def _tensorboard(folder: Path, first_step: int) -> Iterator[Log]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # some GPU images come without it
        say("TensorBoard is not installed, so there will be no log: pip install tensorboard.")
        yield lambda step, figures: None
        return

    # What an interrupted run logged after its last save is written again.
    writer: Any = SummaryWriter(str(folder), purge_step=first_step)

    def log(step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)

    try:
        yield log
    finally:
        writer.close()


def require_trackers(config: TrainConfig) -> None:
    """Look for the packages that will be needed, before any work is done.

    Raises:
        InputError: a tracker is asked for that is not installed.
    """
    for name in config.track:
        try:
            importlib.import_module(name)
        except ImportError:
            raise InputError(
                f"--track {name} needs a package that is not installed: pip install {name}."
            ) from None


@contextmanager
def _hosted(name: Tracker, config: TrainConfig) -> Iterator[Log]:
    """wandb, or trackio, which offers the same three functions."""
    tracker: Any = importlib.import_module(name)
    tracker.init(project="rcml", name=config.out.name, config=config.model_dump(mode="json"))

    def log(step: int, figures: Mapping[str, float]) -> None:
        tracker.log(dict(figures), step=step)

    try:
        yield log
    finally:
        tracker.finish()
