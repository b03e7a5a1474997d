"""Messages to a person while a stage works: notes and progress bars on stderr, bars only on a terminal.

stdout carries results alone (the closing summary), so that it can be piped.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")


class Advance(Protocol):
    """A function that moves a bar by `count` and shows `figures` behind it."""

    def __call__(self, figures: str, count: int = 1) -> None: ...


def say(message: str) -> None:
    """Print one line to stderr."""
    print(message, file=sys.stderr, flush=True)


def progress(things: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield `things` behind a progress bar with count and time left; silent when not a terminal."""
    with progress_bar(label, total) as advance:
        for thing in things:
            yield thing
            advance("")


@contextmanager
def progress_bar(label: str, total: int | None, done: int = 0) -> Iterator[Advance]:
    """Show a bar that each call moves by one or more, with the given figures; silent if not on a terminal.

    `say` may be called meanwhile: its lines appear above the bar.
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
