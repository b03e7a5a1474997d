"""Embedding of all items: threads prefetch the inputs and write the results, so that the network never waits.

A few threads decode pictures and tokenize texts several batches ahead, and another thread writes finished shards.
The processes of a `ProcessGroup` share the work: each of n processes encodes every n-th shard.
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
from model.data.pictures.images import load_picture
from model.embeddings.encoder_protocol import ItemEncoder
from model.embeddings.encoding import Encoding
from model.errors import PictureError
from model.records import Item

from .shards import Shard, Shards

T = TypeVar("T")
R = TypeVar("R")

PROGRESS_INTERVAL_S = 30.0
"""Minimum number of seconds between two progress messages."""


class ProcessGroup(Protocol):
    """Processes that encode items together; `model.training.distributed.ProcessGroup` implements this protocol."""

    @property
    def rank(self) -> int:
        """Rank of this process, counted from 0."""

    @property
    def size(self) -> int:
        """Number of processes in the group."""

    def wait(self) -> None:
        """Block until every process in the group has called this method."""


@dataclass(frozen=True)
class SingleProcess:
    """Process group that consists of one process."""

    rank: int = 0
    size: int = 1

    def wait(self) -> None:
        """Return at once, because there is no other process to wait for."""


SINGLE_PROCESS = SingleProcess()


@dataclass(frozen=True)
class _ReadBatch:
    """Batch whose inputs have been read.

    `kept` contains the positions of the items that could be read, and `encode` encodes these items. `set_aside` maps
    the position of each skipped item to the reason.
    """

    kept: list[int]
    set_aside: dict[int, str]
    encode: Callable[[], Encoding]


class Embedding:
    """Work of one process: the encoding of its unfinished shards."""

    def __init__(
        self, encoder: ItemEncoder, folder: Path, items: Sequence[Item], shards: Shards, tokens: bool
    ) -> None:
        """Prepare to encode `items` into `shards`; the pictures of the items are in `folder`."""
        self._encoder = encoder
        self._folder = folder
        self._items = items
        self._shards = shards
        self._tokens = tokens

    def run(self, group: ProcessGroup, batch_size: int, workers: int) -> None:
        """Encode all unfinished shards of this process.

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
        """Wait until the previous shard is written, and start writing `shard` in the background."""
        if writing is not None:
            writing.result()
        return writer.submit(self._shards.write, shard) if shard.number >= 0 else None

    def _read(self, batch: tuple[int, range]) -> _ReadBatch:
        """Read the inputs of a batch; called in a reader thread."""
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


class _Pace:
    """Average rate of embedding, for the progress bar.

    If `speaks` is true, messages also report the rate at intervals.
    """

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
