"""What a person sees while a stage works: notes and progress bars on stderr, bars only on a terminal.

stdout carries results alone (the closing summary), so that it can be piped.
"""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def say(message: str) -> None:
    """Print one line to stderr."""
    print(message, file=sys.stderr, flush=True)


def progress(things: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yield `things` behind a progress bar with count, rate and time left; silent when not a terminal."""
    if not sys.stderr.isatty():
        yield from things
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)
        yield from bar.track(things, task_id=task, total=total)
