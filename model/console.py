"""Messages of a running stage: notes and progress bars on stderr. Progress bars appear only on a terminal.

stdout contains only the result (the closing summary), so it can be piped.
"""

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")

NOTES = logging.getLogger("rcml.notes")
"""Logger of the lines of `say` in a program that logs. It has handlers of its own only there."""


class Advance(Protocol):
    """Function that advances a progress bar by `count` and shows `figures` after the bar."""

    def __call__(self, figures: str, count: int = 1) -> None:
        """Advance the bar by `count`."""
        ...


def say(message: str) -> None:
    """Print one line to stderr, or log it if the program gave `NOTES` a handler."""
    if NOTES.handlers:
        NOTES.warning("%s", message)
    else:
        print(message, file=sys.stderr, flush=True)


def progress(things: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield `things` and show a progress bar with the count and the remaining time; silent without a terminal."""
    with progress_bar(label, total) as advance:
        for thing in things:
            yield thing
            advance("")


@contextmanager
def progress_bar(label: str, total: int | None, done: int = 0) -> Iterator[Advance]:
    """Show a progress bar and yield the function that advances it; silent without a terminal.

    `say` may be called while the bar is shown. Its lines appear above the bar.
    """
    if not sys.stderr.isatty():
        yield lambda figures, count=1: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, completed=done, figures="")
        yield lambda figures, count=1: bar.update(task, advance=count, figures=figures)
