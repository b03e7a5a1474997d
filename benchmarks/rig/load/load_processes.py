"""Processes that share an HTTP load, so that the asking side does not limit the measurement of a server.

One Python process sends about as many requests per second as two workers of a server answer. Each process of `Clients`
opens its part of the connections, reports it and waits until all have done so. All then send at the same time, and
each returns one message with its `Outcome`.
"""

import asyncio
import multiprocessing
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Self

from .http_load import Outcome, closed_loop, open_loop

Load = Callable[..., Outcome]
"""Closed or open loop whose argument `begin` is missing."""


def run(pipe: Connection) -> None:
    """Send the loads that arrive through `pipe` until it is closed, and answer each with its outcome."""

    async def begin() -> None:
        pipe.send(None)
        await asyncio.to_thread(pipe.recv)

    while True:
        try:
            load: Load = pipe.recv()
        except EOFError:
            return
        pipe.send(load(begin=begin))


class Clients:
    """Processes that send requests; a context manager that ends them."""

    def __init__(self, count: int) -> None:
        """Start `count` processes."""
        fresh = multiprocessing.get_context("spawn")
        self._processes, self._pipes = [], []
        for _ in range(count):
            pipe, theirs = fresh.Pipe()
            process = fresh.Process(target=run, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(pipe)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join()

    def __len__(self) -> int:
        return len(self._processes)

    def closed_loop(self, port: int, messages: Sequence[bytes], connections: int, seconds: float) -> Outcome:
        """Do what `http_load.closed_loop` does, with at least one connection in each process."""
        return self._merged(
            [
                partial(closed_loop, port, self._part(messages, place), max(1, part), seconds)
                for place, part in enumerate(self._shares(connections))
            ]
        )

    def open_loop(
        self,
        port: int,
        messages: Sequence[bytes],
        rate: float,
        seconds: float,
        most: int = 2_000,
        opened: int = 0,
    ) -> Outcome:
        """Do what `http_load.open_loop` does; the processes take turns."""
        count = len(self)
        return self._merged(
            [
                partial(
                    open_loop,
                    port,
                    self._part(messages, place),
                    rate / count,
                    seconds,
                    most_here,
                    opened_here,
                    phase=place / count,
                )
                for place, (most_here, opened_here) in enumerate(
                    zip(self._shares(most), self._shares(opened), strict=True)
                )
            ]
        )

    def _part(self, messages: Sequence[bytes], place: int) -> Sequence[bytes]:
        return messages[place :: len(self)] or messages

    def _shares(self, total: int) -> list[int]:
        """Divide a number among the processes."""
        count = len(self)
        return [total // count + (place < total % count) for place in range(count)]

    def _merged(self, loads: Sequence[Load]) -> Outcome:
        for pipe, load in zip(self._pipes, loads, strict=True):
            pipe.send(load)
        for pipe in self._pipes:
            pipe.recv()  # its connections are open
        for pipe in self._pipes:
            pipe.send(None)
        return Outcome.merged([pipe.recv() for pipe in self._pipes])
