"""Logging of training metrics: always to TensorBoard, and to Weights & Biases or trackio if requested."""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from model.config import Tracker, TrainConfig
from model.console import say
from model.errors import InputError


class Log(Protocol):
    """Function that logs the metrics of a step."""

    def __call__(self, step: int, figures: Mapping[str, float]) -> None:
        """Log the metrics `figures` of `step`."""
        ...


@contextmanager
def open_logs(config: TrainConfig, folder: Path, first_step: int) -> Iterator[Log]:
    """Open TensorBoard in `folder` and the requested trackers, and yield one function that logs to all of them."""
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
    except ImportError:  # some GPU container images do not include it
        say(
            "TensorBoard is not installed, so this run writes no TensorBoard log. Run `pip install tensorboard`."
        )
        yield lambda step, figures: None
        return

    # Drop the steps that an interrupted run logged after its last save, because the resumed run repeats them.
    writer: Any = SummaryWriter(str(folder), purge_step=first_step)

    def log(step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)

    try:
        yield log
    finally:
        writer.close()


def require_trackers(config: TrainConfig) -> None:
    """Check that the packages of the requested trackers are installed, before training starts.

    Raises:
        InputError: a requested tracker is not installed.
    """
    for name in config.track:
        try:
            importlib.import_module(name)
        except ImportError:
            raise InputError(
                f"--track {name} requires a package that is not installed. Run `pip install {name}`."
            ) from None


@contextmanager
def _hosted(name: Tracker, config: TrainConfig) -> Iterator[Log]:
    """Open a log in wandb or trackio, which have the same `init`, `log` and `finish`."""
    tracker: Any = importlib.import_module(name)
    tracker.init(project="rcml", name=config.out.name, config=config.model_dump(mode="json"))

    def log(step: int, figures: Mapping[str, float]) -> None:
        tracker.log(dict(figures), step=step)

    try:
        yield log
    finally:
        tracker.finish()
