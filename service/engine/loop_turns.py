"""Turns on the event loop: answers are put together in slices of bounded size, with other requests in between.

The event loop runs everything that is ready before it looks at the sockets again. If a hundred answers were ready at
once, no other request could even be read until the last of them was put together. Each slice of an answer therefore
waits for its turn. Between two looks at the sockets, turns for about `RESULTS_PER_TURN` results are given.
"""

import asyncio
from collections import deque
from collections.abc import Callable

RESULTS_PER_TURN = 100
"""Results of answers that are put together between two looks at the sockets. A hundred results take a few ms."""


class LoopTurns:
    """Queue of slices of work on one event loop, in order of arrival."""

    def __init__(self, results_per_turn: int = RESULTS_PER_TURN) -> None:
        self.results_per_turn = results_per_turn
        self._left = results_per_turn
        self._renewing = False
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()

    def __len__(self) -> int:
        """Return the number of waiting slices."""
        return len(self._waiting)

    async def take(self, results: int) -> None:
        """Wait until a slice that puts together this many results may run. It runs until the caller's next `await`.

        A slice larger than a whole turn gets a turn of its own.
        """
        if self._takes(results):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def begin() -> None:
            if not turn.cancelled():
                turn.set_result(None)

        self._waiting.append((results, begin))
        await turn

    def call(self, results: int, work: Callable[[], None]) -> None:
        """Call `work`, which puts together this many results: at once if it has a turn, otherwise in a later turn."""
        if self._takes(results):
            work()
        else:
            self._waiting.append((results, work))

    def _takes(self, results: int) -> bool:
        """Take a slice of the current turn, if no other slice waits and enough of it is left."""
        if not self._renewing:
            self._renewing = True
            self._left = self.results_per_turn
            asyncio.get_running_loop().call_soon(self._renew)
        if self._waiting or min(results, self.results_per_turn) > self._left:
            return False
        self._left -= results
        return True

    def _renew(self) -> None:
        """Begin a turn, and give it to the first waiting slices. The loop has looked at the sockets since the last."""
        self._left = self.results_per_turn
        try:
            while self._waiting and min(self._waiting[0][0], self.results_per_turn) <= self._left:
                results, begin = self._waiting.popleft()
                self._left -= results
                begin()
        finally:  # an error of one slice must not hold up the others
            self._renewing = bool(self._waiting)
            if self._renewing:
                asyncio.get_running_loop().call_soon(self._renew)
