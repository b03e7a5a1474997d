"""Downloads of pictures in bulk: several hosts at once, few connections to each, retries, and a cache that resumes.

Every address is asked by the same careful fetcher as in the service (`image_fetcher`). A picture is decoded, scaled and
stored in the cache as soon as it arrives, in threads. What fails is tried again later if a later try may succeed:
after a wait that doubles with each try, with jitter, or after the wait that the server asks for (Retry-After). If a
host refuses several requests one after another, all its requests wait, and half as many connections go on.
"""

import asyncio
import heapq
import os
import random
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from model.console import Advance, progress_bar
from model.errors import FetchError, PictureError

from .image_fetcher import FetchLimits, PictureFetcher
from .images import decode_picture
from .picture_cache import Failure, PictureCache
from .picture_cells import host_of
from .stored_pictures import encode_picture

GROWTH_STEP = 20
"""Number of successes after which a host that refused requests gets one more connection."""


@dataclass(frozen=True)
class DownloadLimits:
    """Limits of a download in bulk.

    At most `connections` requests run at once, and at most `per_host` of them to one host. An address is tried at most
    `tries` times. The first wait is about `first_wait_s`, and no wait is longer than `max_wait_s`. `request_s` limits
    one request.
    """

    connections: int = 64
    per_host: int = 16
    tries: int = 4
    first_wait_s: float = 0.25
    max_wait_s: float = 60.0
    request_s: float = 20.0


@dataclass
class _Host:
    """Addresses of one host that are still to be fetched: new ones, and those to try again, due first in front."""

    limit: int
    new: deque[str] = field(default_factory=deque)
    again: list[tuple[float, str, int]] = field(default_factory=list)
    workers: int = 0
    open_at: float = 0.0
    refused: int = 0
    fetched: int = 0

    def __len__(self) -> int:
        return len(self.new) + len(self.again)

    def take(self) -> tuple[float, str, int]:
        """Remove and return the next address, with the time when it is due and its earlier tries."""
        if self.again and (not self.new or self.again[0][0] <= time.monotonic()):
            return heapq.heappop(self.again)
        return 0.0, self.new.popleft(), 0

    def pause(self, until: float) -> None:
        """Note a refusal. From the third one in a row, all requests wait, and the limit is halved."""
        self.refused += 1
        if self.refused > 2 and time.monotonic() >= self.open_at:
            self.open_at = until
            self.limit = max(1, self.limit // 2)

    def succeed(self, most: int) -> None:
        """Note a success; after `GROWTH_STEP` of them, one more connection is allowed, up to `most`."""
        self.refused = 0
        self.fetched += 1
        if self.fetched % GROWTH_STEP == 0:
            self.limit = min(most, self.limit + 1)


@dataclass
class _Download:
    """Run of `download`: the state that its workers share."""

    cache: PictureCache
    limits: DownloadLimits
    fetcher: PictureFetcher
    threads: ThreadPoolExecutor
    advance: Advance
    group: asyncio.TaskGroup
    turns: asyncio.Semaphore
    failures: list[Failure] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)
    done: int = 0

    def staff(self, host: _Host) -> None:
        """Start workers for `host` until it has as many as it may have, or as there are addresses."""
        while host.workers < min(host.limit, len(host)):
            host.workers += 1
            self.group.create_task(self.work(host))

    async def work(self, host: _Host) -> None:
        """Fetch the addresses of `host` one after another until none is left."""
        while len(host) and host.workers <= host.limit:
            due, address, tries = host.take()
            await asyncio.sleep(max(0.0, due - time.monotonic(), host.open_at - time.monotonic()))
            async with self.turns:
                again_at = await self.fetch(address, tries + 1, host)
            if again_at is None:
                self.done += 1
                self.advance(f"{self.done / (time.monotonic() - self.begun):,.0f} per s")
            else:
                heapq.heappush(host.again, (again_at, address, tries + 1))
            self.staff(host)
        host.workers -= 1

    async def fetch(self, address: str, tries: int, host: _Host) -> float | None:
        """Fetch and store one picture. Return the time of the next try, or None if there is none."""
        try:
            content = await self.fetcher.fetch(address)
            host.succeed(self.limits.per_host)
            await asyncio.get_running_loop().run_in_executor(self.threads, self.store, address, content)
        except FetchError as error:
            if error.transient and tries < self.limits.tries:
                wait = self.limits.first_wait_s * 2.0 ** (tries - 1) * random.uniform(0.5, 1.5)
                wait = max(min(wait, self.limits.max_wait_s), error.retry_after_s or 0.0)
                if wait <= self.limits.max_wait_s:
                    if error.retry_after_s is not None:
                        host.pause(time.monotonic() + wait)
                    return time.monotonic() + wait
            self.fail(address, error.reason, tries)
        except PictureError as error:
            self.fail(address, str(error).partition(" Send ")[0].rstrip("."), tries)
        return None

    def store(self, address: str, content: bytes) -> None:
        """Decode, scale and store a picture, in a thread."""
        scaled = decode_picture(content, self.cache.side)
        self.cache.keep(address, *encode_picture(scaled, content.startswith(b"\x89PNG")))

    def fail(self, address: str, reason: str, tries: int) -> None:
        """Note that the picture at `address` cannot be had."""
        self.failures.append(Failure(address, host_of(address), reason, tries))


def download(
    addresses: Iterable[str],
    cache: PictureCache,
    limits: DownloadLimits | None = None,
    hosts: Collection[str] = (),
) -> list[Failure]:
    """Download the pictures at `addresses` that `cache` does not have, and return what failed.

    `hosts` may be asked although their addresses are not public; see `PictureFetcher`.

    Raises:
        StorageError, InputError: the cache cannot be written.
    """
    wanted = [address for address in dict.fromkeys(addresses) if address not in cache.files]
    if not wanted:
        return []
    try:
        return asyncio.run(_download(wanted, cache, limits or DownloadLimits(), hosts))
    except ExceptionGroup as group:  # of the workers; the first failure ends them all
        raise group.exceptions[0] from None


async def _download(
    wanted: list[str], cache: PictureCache, limits: DownloadLimits, trusted: Collection[str]
) -> list[Failure]:
    of_host: dict[str, _Host] = {}
    for address in wanted:
        of_host.setdefault(host_of(address), _Host(limits.per_host)).new.append(address)
    fetch_limits = FetchLimits(seconds=limits.request_s, concurrency=limits.connections)
    threads = ThreadPoolExecutor(os.cpu_count(), "scaler")
    with threads, progress_bar("fetching pictures", len(wanted)) as advance:
        async with (
            PictureFetcher(fetch_limits, hosts=trusted, keep_alive=True) as fetcher,
            asyncio.TaskGroup() as group,
        ):
            turns = asyncio.Semaphore(limits.connections)
            run = _Download(cache, limits, fetcher, threads, advance, group, turns)
            for host in of_host.values():
                run.staff(host)
    return run.failures


def reasons(failures: Iterable[Failure]) -> dict[str, int]:
    """Return the number of failures by reason, the most frequent first."""
    return dict(Counter(failure.reason for failure in failures).most_common())
