"""Embedding of all items: inputs are prefetched and results written behind, so that the network never waits.

Texts are tokenized and pictures decoded several batches ahead, and another thread writes finished shards.
The processes of a `ProcessGroup` share the work: each of n processes encodes every n-th shard.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Protocol

from indexes.config import BuildConfig
from model.console import progress_bar, say
from model.data.prepared_data import Prepared
from model.embeddings.encoder_protocol import ItemEncoder, ItemReader, PictureFolder, ReadItems
from model.embeddings.encoding import Encoding
from model.errors import ArtifactError, PictureError
from model.records import Item
from model.worker_pools import ahead

from .shards import Shard, Shards

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


class Embedding:
    """Work of one process: the encoding of its unfinished shards."""

    def __init__(self, encoder: ItemEncoder, prepared: Prepared, shards: Shards, config: BuildConfig) -> None:
        """Prepare to encode the items of `prepared` into `shards`."""
        self._encoder = encoder
        self._prepared = prepared
        self._shards = shards
        self._config = config

    def run(self, group: ProcessGroup) -> None:
        """Encode all unfinished shards of this process.

        Raises:
            InputError: a process that decodes pictures ended.
            StorageError: the disk is full or failing.
        """
        done = set(self._shards.done())
        numbers = [n for n in range(group.rank, self._shards.count, group.size) if n not in done]
        batches = [
            (n, rows) for n in numbers for rows in _batches(self._shards.rows(n), self._config.batch_size)
        ]
        total = sum(len(rows) for _, rows in batches)
        with (
            self._encoder.open_reader(self._pictures(total, group), self._config.batch_size) as reader,
            ThreadPoolExecutor(reader.depth, "readers") as readers,
            ThreadPoolExecutor(1, "writer") as writer,
            progress_bar("embedding items", total) as advance,
        ):
            pace = _Pace(total, group.rank == 0)
            shard, writing = Shard(-1), None
            for (number, rows), read in ahead(readers, partial(self._read, reader), batches, reader.depth):
                pace.waited_for("data")
                if number != shard.number:
                    writing = self._hand_over(writer, shard, writing)
                    shard = Shard(number)
                    pace.waited_for("writer")
                shard.set_aside |= {rows[place]: str(error) for place, error in read.errors.items()}
                if len(read.errors) < len(rows):
                    shard.kept += [row for place, row in enumerate(rows) if place not in read.errors]
                    shard.encodings.append(read.encode())
                pace.waited_for("device")
                advance(pace.after(len(rows)), len(rows))
            writing = self._hand_over(writer, shard, writing)
            if writing is not None:
                writing.result()
            pace.waited_for("writer")
            pace.end()

    def _pictures(self, items: int, group: ProcessGroup) -> PictureFolder:
        config, prepared = self._config, self._prepared
        return PictureFolder(
            prepared.pictures,
            prepared.manifest.digest,
            items,
            config.workers,
            group.size,
            config.decoded_pictures,
        )

    def _hand_over(
        self, writer: ThreadPoolExecutor, shard: Shard, writing: Future[None] | None
    ) -> Future[None] | None:
        """Wait until the previous shard is written, and start writing `shard` in the background."""
        if writing is not None:
            writing.result()
        return writer.submit(self._shards.write, shard) if shard.number >= 0 else None

    def _read(self, reader: ItemReader, batch: tuple[int, range]) -> ReadItems:
        """Read the inputs of a batch without its damaged pictures; called in a reader thread."""
        folder = self._prepared.path
        items = [self._prepared.items[place] for place in batch[1]]
        damaged = {place: error for place, item in enumerate(items) if (error := self._damage(item))}
        kept = [place for place in range(len(items)) if place not in damaged]
        if not kept:
            return ReadItems(damaged, _nothing)
        texts = [items[place].text for place in kept]
        paths = [folder / items[place].picture if items[place].picture else None for place in kept]
        read = reader.read(texts, paths, self._config.token_store)
        unread = {kept[place]: error for place, error in read.errors.items()}
        return ReadItems(dict(sorted((damaged | unread).items())), read.encode)

    def _damage(self, item: Item) -> PictureError | None:
        """Compare the picture of an item with its digest, which opening the prepared data has not done."""
        if not item.picture:
            return None
        path = self._prepared.path / item.picture
        try:
            self._prepared.manifest.files[item.picture].check(path, self._prepared.path)
        except ArtifactError:
            return PictureError(
                f"picture {path.name} is missing, or was changed after `rcml prepare` wrote it"
            )
        return None


class _Pace:
    """Average rate of embedding, for the progress bar, and how long the main thread waited for each side.

    If `speaks` is true, messages also report both at intervals and at the end.
    """

    def __init__(self, total: int, speaks: bool) -> None:
        self._total, self._speaks = total, speaks
        self._done = 0
        self._waits = dict.fromkeys(("data", "device", "writer"), 0.0)
        self._begun = self._told = self._last = monotonic()

    def waited_for(self, side: str) -> None:
        """Count the time since the last call as waiting for `side`: data, device or writer."""
        now = monotonic()
        self._waits[side] += now - self._last
        self._last = now

    def after(self, more: int) -> str:
        """Count `more` embedded items and return the rate."""
        self._done += more
        if self._speaks and self._last - self._told > PROGRESS_INTERVAL_S:
            self._told = self._last
            left = (self._total - self._done) / self._rate / 60
            say(
                f"{self._done:,} of {self._total:,} items embedded, {self._rate:,.1f} items/s, {left:,.0f} minutes "
                f"left; {self._shares()}"
            )
        return f"{self._rate:,.1f} items/s"

    def end(self) -> None:
        """Report the whole embedding."""
        if self._speaks and self._done:
            say(f"{self._done:,} items embedded, {self._rate:,.1f} items/s; {self._shares()}")

    @property
    def _rate(self) -> float:
        return self._done / max(self._last - self._begun, 1e-9)

    def _shares(self) -> str:
        whole = max(sum(self._waits.values()), 1e-9)
        return "time: " + ", ".join(f"{side} {wait / whole:.0%}" for side, wait in self._waits.items())


def _nothing() -> Encoding:
    raise AssertionError("a batch without items is not encoded")


def _batches(rows: range, size: int) -> list[range]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
