"""GPU of FAISS: all calls that need faiss-gpu and a GPU. Tests replace a `Card` with FAISS on the CPU.

Of the GPU indexes of FAISS 1.15, `GpuIndexFlat` is the only one that rcml uses. It stores vectors in half precision,
converts the queries to half precision, and sums in single precision. It returns at most `MAX_CARD_DEPTH` results and
ignores selectors. RaBitQ and fast-scan codes exist only on the CPU.

One thread block of the GPU selects the best scores of a query and a block of vectors, which takes longer than the
products if the block is large. The vectors are therefore divided among several `lanes`, which work at the same time:
each has its own streams and temporary memory (`StandardGpuResources`).
"""

import ctypes
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import faiss
import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

MAX_CARD_DEPTH = 2_048
"""Largest number of results of a search on a GPU (`GPU_MAX_SELECTION_K` of FAISS)."""

LANES_PER_CARD = 8
"""Number of lanes of each GPU."""

LANE_BYTES = 512 * 2**20
"""Temporary memory of a lane, which holds the scores of 256 queries with a quarter of a million vectors, twice."""

CUDA_RUNTIMES = (None, "libcudart.so.12", "libcudart.so.13")
"""Libraries to look for the CUDA runtime in; None: the symbols of the process, among which faiss-gpu loads it."""


class NoGpuError(Exception):
    """There is no GPU that FAISS can use; the message is the reason."""


class CardIndex(Protocol):
    """Vectors in half precision on a GPU, as `GpuIndexFlat` provides them."""

    def search(
        self, queries: Float32[ndarray, "queries dim"], k: int
    ) -> tuple[Float32[ndarray, "queries k"], Int64[ndarray, "queries k"]]:
        """Return the `k` largest inner products with each query and their rows; -1 fills up the rows of a short result.

        Raises:
            RuntimeError: the GPU has too little memory, or failed.
        """


class Lane(Protocol):
    """Part of a GPU that runs one call at a time."""

    def load(self, vectors: Float32[ndarray, "items dim"]) -> CardIndex:
        """Copy `vectors`, which are rounded to half precision, to the GPU.

        Raises:
            RuntimeError: the GPU has too little memory, or failed.
        """


class Card(Protocol):
    """A GPU."""

    @property
    def name(self) -> str:
        """Name of the GPU, such as `cuda:0`."""

    @property
    def lanes(self) -> Sequence[Lane]:
        """Lanes of the GPU, which may work at the same time."""

    def room(self) -> int:
        """Return the memory that is free for vectors, in bytes."""


class GpuCard:
    """GPU that FAISS uses through CUDA, by its `number`."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.name = f"cuda:{number}"
        self.lanes = [_GpuLane(number) for _ in range(LANES_PER_CARD)]

    def room(self) -> int:
        """Return the free memory minus the temporary memory of the lanes, which they take when they are first used.

        Raises:
            NoGpuError: the CUDA runtime is not found, or fails.
        """
        return max(_free_bytes(self._number) - LANES_PER_CARD * LANE_BYTES, 0)


class _GpuLane:
    def __init__(self, number: int) -> None:
        self._number = number
        self._resources = faiss.StandardGpuResources()
        self._resources.setTempMemory(LANE_BYTES)
        self._resources.setPinnedMemory(0)  # FAISS uses it only for more than 256 MiB of queries

    def load(self, vectors: Float32[ndarray, "items dim"]) -> Any:
        """Copy vectors to the GPU; in one call, because FAISS would move all vectors in each further call."""
        config = faiss.GpuIndexFlatConfig()
        config.device = self._number
        config.useFloat16 = True
        index = faiss.GpuIndexFlat(self._resources, vectors.shape[1], faiss.METRIC_INNER_PRODUCT, config)
        index.add(np.ascontiguousarray(vectors, np.float32))
        return index


def find_cards() -> list[GpuCard]:
    """Return all GPUs that FAISS can use.

    Raises:
        NoGpuError: there is none; the message is the reason.
    """
    if not hasattr(faiss, "StandardGpuResources"):
        raise NoGpuError("FAISS is installed without GPU support")
    count = faiss.get_num_gpus()
    if count == 0:
        raise NoGpuError("FAISS finds no GPU")
    try:
        cards = [GpuCard(number) for number in range(count)]
    except RuntimeError as error:
        raise NoGpuError(f"FAISS cannot use the GPU: {one_line(error)}") from None
    return cards


def one_line(error: Exception) -> str:
    """Return the message of an error of FAISS on one line, without the C++ function and file that it names."""
    text = " ".join(str(error).split())
    return text.rpartition("failed: ")[2] or text


def cuda_runtime(names: Iterable[str | None] = CUDA_RUNTIMES) -> Any:
    """Return the CUDA runtime, for what FAISS does not offer, from the first library of these `names` that has it.

    Raises:
        NoGpuError: none has it.
    """
    for name in names:
        try:
            runtime = ctypes.CDLL(name)
            runtime.cudaMemGetInfo  # noqa: B018 (raises if the library lacks it)
        except (OSError, AttributeError):
            continue
        return runtime
    raise NoGpuError("the CUDA runtime, which knows the free memory, is not found")


def _free_bytes(number: int) -> int:
    """Ask the CUDA runtime for the free memory of a GPU; FAISS does not tell it.

    Raises:
        NoGpuError: the runtime is not found, or fails.
    """
    runtime = cuda_runtime()
    before, free, total = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_size_t()
    codes = [runtime.cudaGetDevice(ctypes.byref(before)), runtime.cudaSetDevice(number)]
    codes.append(runtime.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)))
    runtime.cudaSetDevice(before)
    if any(codes):
        raise NoGpuError(
            f"the CUDA runtime cannot tell the free memory of cuda:{number} (error {max(codes)})"
        )
    return free.value
