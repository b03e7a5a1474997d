"""Pools of workers: processes that end with their parent, and results that are computed ahead in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import get_all_start_methods, get_context, parent_process
from multiprocessing.context import BaseContext
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_context(preload: Sequence[str]) -> BaseContext:
    """Return a way to start processes: a fork server that imports the modules `preload` once for all, or a new Python.

    Only the first caller in a process decides what the fork server imports. The modules of later callers are imported
    by each of their processes.
    """
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context


def process_pool(
    workers: int,
    context: BaseContext,
    begin: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> ProcessPoolExecutor:
    """Return an executor with worker processes that end with this process, even if it is killed.

    Each worker first calls `begin(*arguments)`. If a worker ends before its time, all pending results raise
    `concurrent.futures.BrokenExecutor`.
    """
    return ProcessPoolExecutor(workers, context, _begin, (begin, arguments))


def _begin(begin: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    _end_with_parent()
    if begin is not None:
        begin(*arguments)


def _end_with_parent() -> None:
    """End this process when the one that started it ends, even by a kill."""

    def wait() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=wait, daemon=True).start()


def ahead(pool: Executor, work: Callable[[T], R], things: Iterable[T], depth: int) -> Iterator[tuple[T, R]]:
    """Yield each of `things` with the result of `work` for it, in order; at most `depth` results are computed ahead."""
    left = iter(things)
    made: deque[tuple[T, Future[R]]] = deque()
    try:
        while True:
            while len(made) < depth and (thing := next(left, None)) is not None:
                made.append((thing, pool.submit(work, thing)))
            if not made:
                return
            thing, future = made.popleft()
            yield thing, future.result()
    finally:
        for _, future in made:
            future.cancel()
