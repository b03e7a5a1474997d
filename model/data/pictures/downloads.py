"""Downloads of pictures in bulk: several hosts at once, few connections to each, retries, and a cache that resumes.

Every address is asked by the same careful fetcher as in the service (`image_fetcher`). A picture is decoded, scaled and
stored in the cache as soon as it arrives (`scalers`). What fails is tried again later if a later try may succeed:
after a wait that doubles with each try, with jitter, or after the wait that the server asks for (Retry-After). If a
host refuses several requests one after another, all its requests wait, and half as many connections go on.
"""

import asyncio
import heapq
import random
import time
from collections import Counter, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from model.console import Advance, progress_bar
from model.errors import FetchError, PictureError

from .image_fetcher import FetchLimits, PictureFetcher
from .picture_cache import Failure, PictureCache
from .picture_cells import host_of
from .scalers import Scalers

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
    """Run of `download`: the state that its workers share.

    `turns` limits the requests at once, and `places` the pictures in memory: those that are fetched or wait for a
    scaler.
    """

    limits: DownloadLimits
    fetcher: PictureFetcher
    scalers: Scalers
    advance: Advance
    group: asyncio.TaskGroup
    turns: asyncio.Semaphore
    places: asyncio.Semaphore
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
            await self.places.acquire()
            async with self.turns:
                content = await self.fetch(address, tries + 1, host)
            if content is None:
                self.places.release()
            else:
                self.group.create_task(self.store(address, content, tries + 1))
            self.staff(host)
        host.workers -= 1

    async def fetch(self, address: str, tries: int, host: _Host) -> bytes | None:
        """Fetch one picture, or note when it is tried again or why it cannot be had."""
        try:
            content = await self.fetcher.fetch(address)
        except FetchError as error:
            again_at = self.again_at(error, tries)
            if again_at is None:
                self.fail(address, error.reason, tries)
            else:
                heapq.heappush(host.again, (again_at, address, tries))
                if error.retry_after_s is not None:
                    host.pause(again_at)
            return None
        host.succeed(self.limits.per_host)
        return content

    def again_at(self, error: FetchError, tries: int) -> float | None:
        """Return the time of the next try, or None if there is none."""
        if not error.transient or tries >= self.limits.tries:
            return None
        wait = self.limits.first_wait_s * 2.0 ** (tries - 1) * random.uniform(0.5, 1.5)
        wait = max(min(wait, self.limits.max_wait_s), error.retry_after_s or 0.0)
        return time.monotonic() + wait if wait <= self.limits.max_wait_s else None

    async def store(self, address: str, content: bytes, tries: int) -> None:
        """Scale and store a fetched picture, or note why it is none."""
        try:
            await self.scalers.store(address, content)
        except PictureError as error:
            self.fail(address, str(error).partition(" Send ")[0].rstrip("."), tries)
        else:
            self.count()
        finally:
            self.places.release()

    def fail(self, address: str, reason: str, tries: int) -> None:
        """Note that the picture at `address` cannot be had."""
        self.failures.append(Failure(address, host_of(address), reason, tries))
        self.count()

    def count(self) -> None:
        """Count a picture that is stored or failed, and show the progress."""
        self.done += 1
        self.advance(f"{self.done / (time.monotonic() - self.begun):,.0f} per s")


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
    with progress_bar("fetching pictures", len(wanted)) as advance:
        async with (
            PictureFetcher(fetch_limits, hosts=trusted, keep_alive=True) as fetcher,
            Scalers(cache, len(wanted)) as scalers,
            asyncio.TaskGroup() as group,
        ):
            turns = asyncio.Semaphore(limits.connections)
            places = asyncio.Semaphore(2 * limits.connections)
            run = _Download(limits, fetcher, scalers, advance, group, turns, places)
            for host in of_host.values():
                run.staff(host)
    return run.failures


def reasons(failures: Iterable[Failure]) -> dict[str, int]:
    """Return the number of failures by reason, the most frequent first."""
    return dict(Counter(failure.reason for failure in failures).most_common())
