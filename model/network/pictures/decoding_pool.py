"""Pool of workers that decode batches of pictures: threads for a few pictures, processes for many.

Threads take turns at Python's lock, so they cannot keep a fast device busy. Processes decode into memory that they
share with this process: a ring of slabs, each with room for one batch. Only file names and errors are passed between
processes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from contextlib import contextmanager
from ctypes import c_int32, c_uint8
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from tempfile import gettempdir
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Int32, UInt8
from numpy import ndarray

from model.console import say
from model.disk_space import has_room
from model.errors import InputError, PictureError
from model.network.devices import pinned
from model.network.inputs import PictureInput
from model.worker_pools import ahead, process_pool, start_context

from .picture_decoder import PictureDecoder

MIN_FOR_PROCESSES = 4_000
"""Number of pictures from which processes decode them, because their start takes a few seconds."""

CHUNK = 16
"""Number of pictures that a worker gets at once."""

SHARED_MEMORY = Path("/dev/shm")
"""Folder of shared memory on Linux. Elsewhere, or if it is too small, Python uses the folder of temporary files."""

SHARED_MARGIN = 2**23
"""Bytes that Python may take in addition."""

CPU = torch.device("cpu")


class PictureStore(Protocol):
    """Store of decoded pictures; `DecodedPictures` is the only implementation outside the tests."""

    def read(self, path: Path, pixels: UInt8[ndarray, "..."], grid: Int32[ndarray, " 2"]) -> bool:
        """Copy the decoded picture at `path` into `pixels` and `grid` and return whether it was stored."""

    def write(self, path: Path, pixels: UInt8[ndarray, "..."], grid: Int32[ndarray, " 2"]) -> None:
        """Store the decoded picture at `path`."""


@dataclass(frozen=True)
class DecodedBatch:
    """Pictures of one batch. `errors` has the positions of those that could not be decoded, with the reason.

    `pictures` is a part of the ring: call `release` when it is no longer needed.
    """

    pictures: PictureInput
    errors: dict[int, PictureError]
    release: Callable[[], None]


@dataclass(frozen=True)
class _Slabs:
    """Ring of slabs: memory for decoded batches, which a worker process shares."""

    decoder: PictureDecoder
    pixels: UInt8[ndarray, "slabs batch ..."]
    grid: Int32[ndarray, "slabs batch 2"]

    def decode(self, slab: int, places: Sequence[tuple[int, Path]]) -> dict[int, PictureError]:
        """Decode pictures into rows of a slab, and return why some could not be decoded."""
        room = PictureInput(torch.from_numpy(self.pixels[slab]), torch.from_numpy(self.grid[slab]))
        errors = {}
        for row, path in places:
            try:
                self.decoder.decode_file(path, room, row)
            except PictureError as error:
                errors[row] = error
        return errors


class DecodingPool:
    """Workers that decode batches of at most `batch_size` pictures; at most `depth` batches may be read at a time."""

    def __init__(
        self,
        slabs: _Slabs,
        executor: Executor,
        decode: Callable[[int, Sequence[tuple[int, Path]]], dict[int, PictureError]],
        store: PictureStore | None,
    ) -> None:
        self.depth, self.batch_size = len(slabs.pixels) - 1, slabs.pixels.shape[1]
        self._slabs = slabs
        self._executor = executor
        self._decode = decode
        self._store = store
        self._free: SimpleQueue[int] = SimpleQueue()
        for slab in range(len(slabs.pixels)):
            self._free.put(slab)

    def read(self, paths: Sequence[Path]) -> DecodedBatch:
        """Decode the pictures at `paths`, or copy them from the store; may be called from several threads.

        Raises:
            InputError: a worker process ended.
        """
        slab = self._free.get()
        pixels, grid = self._slabs.pixels[slab], self._slabs.grid[slab]
        store = self._store
        missing = [
            (row, path)
            for row, path in enumerate(paths)
            if store is None or not store.read(path, pixels[row], grid[row])
        ]
        errors: dict[int, PictureError] = {}
        try:
            for done in [
                self._executor.submit(self._decode, slab, missing[start : start + CHUNK])
                for start in range(0, len(missing), CHUNK)
            ]:
                errors |= done.result()
        except BrokenExecutor:
            raise InputError(
                "A process that decodes pictures was ended, perhaps for want of memory. Run again with fewer --workers "
                "or a smaller --batch-size."
            ) from None
        for row, path in missing if store is not None else ():
            if row not in errors:
                assert store is not None
                store.write(path, pixels[row], grid[row])
        count = len(paths)
        pictures = PictureInput(torch.from_numpy(pixels[:count]), torch.from_numpy(grid[:count]))
        return DecodedBatch(pictures, errors, partial(self._free.put, slab))

    def batches(self, paths: Sequence[Path]) -> Iterator[tuple[int, DecodedBatch]]:
        """Decode many pictures; yield batch after batch, each with the position of its first picture.

        The caller must release a batch before it takes the next one.

        Raises:
            PictureError: a picture cannot be decoded.
        """

        def read(start: int) -> DecodedBatch:
            return self.read(paths[start : start + self.batch_size])

        with ThreadPoolExecutor(self.depth, "readers") as readers:
            for start, batch in ahead(readers, read, range(0, len(paths), self.batch_size), self.depth):
                for row in sorted(batch.errors):
                    raise batch.errors[row]
                yield start, batch


@contextmanager
def decoding_pool(
    decoder: PictureDecoder,
    pictures: int,
    workers: int,
    batch_size: int = 64,
    device: torch.device = CPU,
    store: PictureStore | None = None,
) -> Iterator[DecodingPool]:
    """Open a pool of `workers` that will decode about this number of `pictures`.

    The memory is pinned for `device` if it is a CUDA device. Pictures in `store` are not decoded, and others are added.
    """
    batch_size = max(1, min(batch_size, pictures))
    depth = 2 + -(-2 * workers * CHUNK // batch_size)
    shape = (depth + 1, batch_size, *decoder.shape)
    processes = pictures >= MIN_FOR_PROCESSES and _can_share(math.prod(shape))
    executor: Executor
    if processes:
        context: Any = start_context([type(decoder.image_processor).__module__, __name__])
        memory = (
            context.RawArray(c_uint8, math.prod(shape)),
            context.RawArray(c_int32, 2 * math.prod(shape[:2])),
        )
        slabs = _shared(decoder, memory, shape)
        executor = process_pool(workers, context, _begin, (decoder, memory, shape))
    else:
        slabs = _Slabs(decoder, np.zeros(shape, np.uint8), np.zeros((*shape[:2], 2), np.int32))
        executor = ThreadPoolExecutor(workers, "decoders")
    with pinned(slabs.pixels, device):
        try:
            yield DecodingPool(slabs, executor, _decode if processes else slabs.decode, store)
        finally:
            executor.shutdown(cancel_futures=True)


def _can_share(needed: int) -> bool:
    """Return whether there is room for shared memory; without it, the first use would kill this process."""
    folders = [folder for folder in (SHARED_MEMORY, Path(gettempdir())) if folder.is_dir()]
    if any(has_room(folder, needed + SHARED_MARGIN) for folder in folders):
        return True
    say(
        f"Threads decode the pictures, which is slower: processes need {needed / 1e6:.0f} MB of shared memory, and "
        f"{' and '.join(map(str, folders))} have less."
    )
    return False


def _shared(decoder: PictureDecoder, memory: tuple[Any, Any], shape: tuple[int, ...]) -> _Slabs:
    pixels = np.frombuffer(memory[0], np.uint8).reshape(shape)
    return _Slabs(decoder, pixels, np.frombuffer(memory[1], np.int32).reshape(*shape[:2], 2))


_slabs: _Slabs | None = None
"""Slabs of a worker process."""


def _begin(decoder: PictureDecoder, memory: tuple[Any, Any], shape: tuple[int, ...]) -> None:
    """Prepare a worker process."""
    global _slabs
    torch.set_num_threads(1)
    _slabs = _shared(decoder, memory, shape)


def _decode(slab: int, places: Sequence[tuple[int, Path]]) -> dict[int, PictureError]:
    assert _slabs is not None
    return _slabs.decode(slab, places)
