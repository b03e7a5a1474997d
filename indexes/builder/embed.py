"""The embedding of all items: threads read ahead of the network and write behind it, so that it never waits.

A few threads decode pictures and tokenize texts, some batches ahead; another writes whole shards. Several processes
may share the work (`ProcessGroup`): each takes every n-th shard.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Protocol, TypeVar

from PIL import Image

from model.console import progress_bar, say
from model.data.images import load_picture
from model.embeddings.encoder_protocol import ItemEncoder
from model.embeddings.encoding import Encoding
from model.errors import PictureError
from model.records import Item

from .shards import Shard, Shards

T = TypeVar("T")
R = TypeVar("R")

PROGRESS_INTERVAL_S = 30.0
"""Seconds between two log lines on the progress."""


class ProcessGroup(Protocol):
    """The processes that encode together; `model.training.distributed.ProcessGroup` is one."""

    @property
    def rank(self) -> int:
        """Number of this process among them, from 0."""

    @property
    def size(self) -> int:
        """Number of processes."""

    def wait(self) -> None:
        """Block until every process has arrived."""


@dataclass(frozen=True)
class SingleProcess:
    """A process group of one."""

    rank: int = 0
    size: int = 1

    def wait(self) -> None:
        """Do nothing."""


SINGLE_PROCESS = SingleProcess()


@dataclass(frozen=True)
class _ReadBatch:
    """A batch, read: places of its items, those skipped and why, and a function that encodes the rest."""

    kept: list[int]
    set_aside: dict[int, str]
    encode: Callable[[], Encoding]


class Embedding:
    """The work of one process: its own shards that are not there yet."""

    def __init__(
        self, encoder: ItemEncoder, folder: Path, items: Sequence[Item], shards: Shards, tokens: bool
    ) -> None:
        """Encode `items`, whose pictures lie in `folder`, into `shards`."""
        self._encoder = encoder
        self._folder = folder
        self._items = items
        self._shards = shards
        self._tokens = tokens

    def run(self, group: ProcessGroup, batch_size: int, workers: int) -> None:
        """Encode until all of this process's shards are there.

        Raises:
            StorageError: the disk is full or failing.
        """
        done = set(self._shards.done())
        numbers = [n for n in range(group.rank, self._shards.count, group.size) if n not in done]
        batches = [(n, rows) for n in numbers for rows in _batches(self._shards.rows(n), batch_size)]
        total = sum(len(rows) for _, rows in batches)
        with (
            ThreadPoolExecutor(workers, "readers") as readers,
            ThreadPoolExecutor(1, "writer") as writer,
            progress_bar("embedding items", total) as advance,
        ):
            pace = _Pace(total, group.rank == 0)
            shard, writing = Shard(-1), None
            for (number, rows), read in ahead(readers, self._read, batches, 2 * workers):
                if number != shard.number:
                    writing = self._hand_over(writer, shard, writing)
                    shard = Shard(number)
                shard.set_aside |= read.set_aside
                if read.kept:
                    shard.kept += read.kept
                    shard.encodings.append(read.encode())
                advance(pace.after(len(rows)), len(rows))
            writing = self._hand_over(writer, shard, writing)
            if writing is not None:
                writing.result()

    def _hand_over(
        self, writer: ThreadPoolExecutor, shard: Shard, writing: Future[None] | None
    ) -> Future[None] | None:
        """Have a finished shard written, after the one before it."""
        if writing is not None:
            writing.result()
        return writer.submit(self._shards.write, shard) if shard.number >= 0 else None

    def _read(self, batch: tuple[int, range]) -> _ReadBatch:
        """Read a batch; runs in a reader thread."""
        kept, set_aside = [], {}
        texts: list[str] = []
        pictures: list[Image.Image | None] = []
        for place in batch[1]:
            item = self._items[place]
            try:
                picture = load_picture(self._folder / item.picture) if item.picture else None
            except PictureError as error:
                set_aside[place] = str(error)
                continue
            kept.append(place)
            texts.append(item.text)
            pictures.append(picture)
        if not kept:
            return _ReadBatch(kept, set_aside, _nothing)
        return _ReadBatch(kept, set_aside, self._encoder.read_items(texts, pictures, self._tokens))


def ahead(
    pool: ThreadPoolExecutor, work: Callable[[T], R], things: Iterable[T], depth: int
) -> Iterator[tuple[T, R]]:
    """Yield each thing and what `work` makes of it, in order; at most `depth` are made ahead."""
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


class _Pace:
    """Items a second so far, for the bar; and, now and then, a log line if there is no bar."""

    def __init__(self, total: int, speaks: bool) -> None:
        self._total, self._speaks = total, speaks
        self._done = 0
        self._begun = self._told = monotonic()

    def after(self, more: int) -> str:
        self._done += more
        now = monotonic()
        rate = self._done / max(now - self._begun, 1e-9)
        if self._speaks and now - self._told > PROGRESS_INTERVAL_S:
            self._told = now
            left = (self._total - self._done) / rate / 60
            say(
                f"{self._done:,} of {self._total:,} items embedded, {rate:,.1f} items/s, {left:,.0f} minutes left"
            )
        return f"{rate:,.1f} items/s"


def _batches(rows: range, size: int) -> list[range]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _nothing() -> Encoding:
    raise AssertionError("a batch without items is not encoded")
