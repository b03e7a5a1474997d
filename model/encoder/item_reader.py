"""Reader of the inputs of many items, ahead of the network: texts are tokenized, pictures decoded by a pool.

On CUDA, a reader also copies the pictures to the device, on a stream of its own, while the network computes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from model.embeddings.encoder_protocol import PictureFolder, ReadItems
from model.embeddings.encoding import Encoding
from model.network.inputs import PictureInput, TextInput
from model.network.pictures.decoded_pictures import DecodedPictures
from model.network.pictures.decoding_pool import DecodedBatch, DecodingPool, decoding_pool
from model.network.processor import Preprocessor
from model.worker_pools import available_cores

CPU_WORKERS = 2
"""Maximum number of workers beside towers that run on the CPU: the towers need the cores."""

Encode = Callable[[TextInput, PictureInput, Sequence[int], bool], Encoding]
"""Function that encodes texts, and pictures that belong to the texts at the given positions, perhaps with tokens."""


@dataclass(frozen=True)
class PoolReader:
    """Reader whose pictures are decoded by a pool; it implements `ItemReader`."""

    preprocessor: Preprocessor
    device: torch.device
    encode: Encode
    pool: DecodingPool
    stream: torch.cuda.Stream | None

    @classmethod
    def of(cls, preprocessor: Preprocessor, device: torch.device, encode: Encode, pool: DecodingPool) -> Self:
        """Create a reader; on CUDA, with a stream to copy pictures."""
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        return cls(preprocessor, device, encode, pool, stream)

    @property
    def depth(self) -> int:
        """Number of batches to read at a time."""
        return self.pool.depth

    def read(self, texts: Sequence[str], paths: Sequence[Path | None], tokens: bool) -> ReadItems:
        """Read a batch; see `ItemReader.read`."""
        pictured = [row for row, path in enumerate(paths) if path is not None]
        batch = self.pool.read([path for path in paths if path is not None])
        errors = {pictured[place]: error for place, error in batch.errors.items()}
        kept = [row for row in range(len(texts)) if row not in errors]
        if not kept:
            batch.release()
            return ReadItems(errors, _nothing)
        place_of = {row: place for place, row in enumerate(kept)}
        places = [place_of[row] for row in pictured if row not in errors]
        text = self.preprocessor.tokenize([texts[row] for row in kept])
        pictures, release = self._on_device(batch)

        def encode() -> Encoding:
            try:
                return self.encode(text, pictures, places, tokens)
            finally:
                release()

        return ReadItems(errors, encode)

    def _on_device(self, batch: DecodedBatch) -> tuple[PictureInput, Callable[[], None]]:
        """Copy the readable pictures of a batch to the device; on the CPU, they stay in the memory of the pool."""
        pictures = batch.pictures
        if batch.errors:
            readable = [row for row in range(len(pictures)) if row not in batch.errors]
            pictures = pictures.take(torch.tensor(readable, dtype=torch.long))
        if self.stream is None:
            return pictures, batch.release
        with torch.cuda.stream(self.stream):
            copied = pictures.to(self.device)
        self.stream.synchronize()
        batch.release()
        return copied, lambda: None


@contextmanager
def open_pool(
    preprocessor: Preprocessor, device: torch.device, folder: PictureFolder, batch_size: int
) -> Iterator[DecodingPool]:
    """Open a pool for the pictures in `folder`; see `ItemEncoder.open_reader`."""
    store = None
    if folder.cache is not None:
        store = DecodedPictures.open(folder.cache, folder.digest, preprocessor.decoder, folder.paths)
        store.require_room(folder.paths, "omit --decoded-pictures")
    workers = folder.workers or choose_workers(device.type == "cuda", folder.sharers)
    with decoding_pool(preprocessor.decoder, folder.count, workers, batch_size, device, store) as pool:
        yield pool


def choose_workers(on_cuda: bool, sharers: int) -> int:
    """Return the number of workers beside the towers, if `sharers` processes share the cores of this machine.

    On CUDA, all cores but one of each process decode.
    """
    cores = max(1, available_cores() // sharers)
    return max(1, cores - 1) if on_cuda else min(CPU_WORKERS, cores)


def _nothing() -> Encoding:
    raise AssertionError("a batch without items is not encoded")
