"""Turns on the event loop: answers are put together in slices of bounded size, with other requests in between.

The event loop runs everything that is ready before it looks at the sockets again. If a hundred answers were ready at
once, no other request could even be read until the last of them was put together. Each slice of an answer therefore
waits for its turn. Between two looks at the sockets, turns for about `RESULTS_PER_TURN` results are given.
"""

import asyncio
from collections import deque

RESULTS_PER_TURN = 100
"""Results of answers that are put together between two looks at the sockets. A hundred results take a few ms."""


class LoopTurns:
    """Queue of slices of work on one event loop, in order of arrival."""

    def __init__(self, results_per_turn: int = RESULTS_PER_TURN) -> None:
        self.results_per_turn = results_per_turn
        self._left = results_per_turn
        self._renewing = False
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def __len__(self) -> int:
        """Return the number of waiting slices."""
        return len(self._waiting)

    async def take(self, results: int) -> None:
        """Wait until a slice that puts together this many results may run. It runs until the caller's next `await`.

        A slice larger than a whole turn gets a turn of its own.
        """
        results = min(results, self.results_per_turn)
        loop = asyncio.get_running_loop()
        if not self._renewing:
            self._renewing = True
            self._left = self.results_per_turn
            loop.call_soon(self._renew, loop)
        if not self._waiting and results <= self._left:
            self._left -= results
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append((results, turn))
        await turn

    def _renew(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin a turn, and give it to the first waiting slices. The loop has looked at the sockets since the last."""
        self._left = self.results_per_turn
        while self._waiting and (self._waiting[0][0] <= self._left or self._waiting[0][1].cancelled()):
            results, turn = self._waiting.popleft()
            if not turn.cancelled():
                self._left -= results
                turn.set_result(None)
        self._renewing = bool(self._waiting)
        if self._renewing:
            loop.call_soon(self._renew, loop)
