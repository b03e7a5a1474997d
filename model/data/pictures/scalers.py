"""Workers that decode, scale and store downloaded pictures, beside the event loop that fetches them.

Pictures that arrive while all workers are busy go to the next free one together, so that a hand-over costs little for
each. A few pictures are scaled by threads. For many, processes are worth their start of about a second: threads take
turns with the event loop at Python's lock, and held the rate at 860 pictures a second where processes reached 1,900.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from model.errors import PictureError, StorageError
from model.worker_pools import available_cores, process_pool, start_context

from .images import decode_picture
from .picture_cache import PictureCache, store_picture
from .stored_pictures import encode_picture

MIN_FOR_PROCESSES = 2_000
"""Number of pictures from which processes scale them."""

MAX_BATCH = 32
"""Maximum number of pictures that a worker gets at once."""


@dataclass
class Scalers:
    """Workers for the pictures of one download into `cache`: `async with Scalers(cache, pictures) as scalers`."""

    cache: PictureCache
    pictures: int
    _waiting: list[tuple[str, bytes, "asyncio.Future[None]"]] = field(default_factory=list)
    _batches: "set[asyncio.Task[None]]" = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._workers = available_cores()
        self._executor: Executor = (
            process_pool(self._workers, start_context([__name__]))
            if self.pictures >= MIN_FOR_PROCESSES
            else ThreadPoolExecutor(self._workers, "scaler")
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._executor.shutdown(cancel_futures=True)

    async def store(self, address: str, content: bytes) -> None:
        """Decode, scale and store the picture at `address`.

        Raises:
            PictureError: it is no picture, damaged or too large.
            StorageError: the cache cannot be written, or a worker ended.
        """
        stored = asyncio.get_running_loop().create_future()
        self._waiting.append((address, content, stored))
        self._hand_over()
        await stored

    def _hand_over(self) -> None:
        while self._waiting and len(self._batches) < self._workers:
            batch = self._waiting[:MAX_BATCH]
            del self._waiting[:MAX_BATCH]
            task = asyncio.get_running_loop().create_task(self._scale(batch))
            self._batches.add(task)
            task.add_done_callback(self._finish)

    def _finish(self, task: "asyncio.Task[None]") -> None:
        self._batches.discard(task)
        self._hand_over()

    async def _scale(self, batch: list[tuple[str, bytes, "asyncio.Future[None]"]]) -> None:
        contents = [content for _, content, _ in batch]
        try:
            with self.cache.writing():
                outcomes = await asyncio.get_running_loop().run_in_executor(
                    self._executor, scale_all, self.cache.folder, self.cache.side, contents
                )
            names = {
                address: outcome
                for (address, _, _), outcome in zip(batch, outcomes, strict=True)
                if isinstance(outcome, str)
            }
            self.cache.record(names)
        except BrokenExecutor:
            reason = "a process that scales pictures was ended, perhaps for want of memory"
            _refuse(
                batch, StorageError(f"{self.cache.folder}: {reason}. Run again; what was fetched is kept.")
            )
        except Exception as error:
            _refuse(batch, error)
        else:
            for (_, _, stored), outcome in zip(batch, outcomes, strict=True):
                if stored.done():  # the caller was cancelled
                    continue
                if isinstance(outcome, PictureError):
                    stored.set_exception(outcome)
                else:
                    stored.set_result(None)


def _refuse(batch: Sequence[tuple[str, bytes, "asyncio.Future[None]"]], error: Exception) -> None:
    for _, _, stored in batch:
        if not stored.done():  # the caller was cancelled
            stored.set_exception(error)


def scale_all(folder: Path, side: int, contents: Sequence[bytes]) -> list[str | PictureError]:
    """Decode, scale and store pictures in the folder of a cache; return their names, or why they are none.

    Raises:
        OSError: the folder cannot be written.
    """
    outcomes: list[str | PictureError] = []
    for content in contents:
        try:
            scaled = decode_picture(content, side)
        except PictureError as error:
            outcomes.append(error)
            continue
        outcomes.append(store_picture(folder, *encode_picture(scaled, content.startswith(b"\x89PNG"))))
    return outcomes
