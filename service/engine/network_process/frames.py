"""Frames that a server process and the network process exchange: a JSON header and the raw bytes of arrays.

    magic "rcml" | version | number of arrays | length of the header | length of the arrays | header | arrays

The numbers are unsigned 32-bit integers, little-endian. The header is a JSON object with the `kind` of the frame, the
number of the `job`, its `body`, and the `arrays`, as pairs of a type and a shape. Each array begins at a multiple of
`ALIGNMENT` bytes, because NumPy adds in another order if an array is not aligned.

Nothing in a frame is executed. A frame that is damaged, too large or of another version raises a `FrameError`.
"""

from asyncio import StreamReader
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedReader
from struct import Struct
from typing import Any, ClassVar

import numpy as np
import orjson
from numpy import ndarray

from model.errors import RcmlError

VERSION = 1
"""Version of the frames. Both sides come from the same installation, so other versions are refused."""

MAX_HEADER_BYTES = 8 * 2**20
"""Maximum length of a header. The longest text that a request may contain takes less than 1 MiB."""

MAX_ARRAY_BYTES = 512 * 2**20
"""Maximum length of all arrays of a frame. A picture takes 0.2 MB, an encoding about 0.1 MB."""

MAX_ARRAYS, MAX_AXES = 16, 4

ALIGNMENT = 64

TYPES = {name: np.dtype(name) for name in ("|u1", "<i8", "<f2", "<f4", "<f8")}
"""Types of arrays that a frame may contain, by name."""


class FrameError(RcmlError):
    """Error raised if a frame is damaged, too large, of another version, or cannot be encoded."""


@dataclass(frozen=True)
class Frame:
    """One message: its kind, the number of the job it belongs to, JSON values, and arrays that they refer to."""

    kind: str
    job: int
    body: Any = None
    arrays: Sequence[ndarray] = ()


@dataclass(frozen=True)
class Prefix:
    """Part of a frame before its header: the number of arrays, and the lengths of header and arrays in bytes."""

    arrays: int
    header_bytes: int
    array_bytes: int

    LAYOUT: ClassVar = Struct("<4s4I")

    @classmethod
    def read(cls, content: bytes | bytearray) -> "Prefix":
        """Read the first `LAYOUT.size` bytes of a frame.

        Raises:
            FrameError: These are not the first bytes of a frame, or the frame is of another version or too large.
        """
        magic, version, arrays, header_bytes, array_bytes = cls.LAYOUT.unpack(content)
        if magic != b"rcml":
            raise FrameError(f"A frame begins with {bytes(magic)!r} instead of b'rcml'.")
        if version != VERSION:
            raise FrameError(
                f"A frame has version {version}, but this process reads version {VERSION}. Restart the server."
            )
        _check_sizes(arrays, header_bytes, array_bytes)
        return cls(arrays, header_bytes, array_bytes)


def encode(frame: Frame) -> list[bytes | memoryview]:
    """Return the bytes of a frame in parts, without copying contiguous arrays.

    Raises:
        FrameError: The frame is too large, or it contains a value or a type of array that no frame may contain.
    """
    parts: list[bytes | memoryview] = []
    total = 0
    for array in frame.arrays:
        if array.dtype.str not in TYPES or array.ndim > MAX_AXES:
            raise FrameError(f"An array of type {array.dtype.str} with {array.ndim} axes cannot be sent.")
        gap = -total % ALIGNMENT
        parts += [bytes(gap), memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)]
        total += gap + array.nbytes
    shapes = [[array.dtype.str, list(array.shape)] for array in frame.arrays]
    try:
        header = orjson.dumps({"kind": frame.kind, "job": frame.job, "body": frame.body, "arrays": shapes})
    except TypeError as error:
        raise FrameError(f"A value cannot be sent: {error}.") from error
    _check_sizes(len(shapes), len(header), total)
    return [Prefix.LAYOUT.pack(b"rcml", VERSION, len(shapes), len(header), total) + header, *parts]


def decode(prefix: Prefix, header: bytes | bytearray, arrays: bytearray) -> Frame:
    """Return the frame with this prefix; its arrays share the memory of `arrays`.

    Raises:
        FrameError: The frame is damaged.
    """
    try:
        raw = orjson.loads(header)
    except ValueError as error:
        raise FrameError(f"The header of a frame is not JSON: {error}.") from None
    match raw:
        case {"kind": str(kind), "job": int(job), "body": body, "arrays": list(shapes), **others} if (
            not others and not isinstance(job, bool) and len(shapes) == prefix.arrays
        ):
            return Frame(kind, job, body, _arrays(shapes, memoryview(arrays)))
    raise FrameError("The header of a frame does not have exactly the fields kind, job, body and arrays.")


def receive(source: BufferedReader) -> Frame | None:
    """Read the next frame from a blocking connection. Return None if the other side has closed it.

    Each read from the socket waits for the lock of the interpreter, for up to half a millisecond if the event loop is
    busy. The buffer of `source` therefore takes many frames at a time.

    Raises:
        FrameError: The frame is damaged, or the other side ended in the middle of it.
        OSError: The connection is broken.
    """
    if not source.peek(1):
        return None
    prefix = Prefix.read(_read(source, Prefix.LAYOUT.size))
    header = _read(source, prefix.header_bytes)
    return decode(prefix, header, _read(source, prefix.array_bytes))


async def receive_from_stream(source: StreamReader) -> Frame:
    """Read the next frame from a stream.

    Raises:
        FrameError: The frame is damaged.
        asyncio.IncompleteReadError: The other side has closed the stream.
    """
    prefix = Prefix.read(await source.readexactly(Prefix.LAYOUT.size))
    header = await source.readexactly(prefix.header_bytes)
    return decode(prefix, header, bytearray(await source.readexactly(prefix.array_bytes)))


def _read(source: BufferedReader, size: int) -> bytearray:
    """Return the next `size` bytes of a blocking connection."""
    content = bytearray(size)
    if source.readinto(content) != size:
        raise FrameError("The other process ended in the middle of a frame.")
    return content


def _check_sizes(arrays: int, header_bytes: int, array_bytes: int) -> None:
    for name, size, limit in (
        ("arrays", arrays, MAX_ARRAYS),
        ("bytes in its header", header_bytes, MAX_HEADER_BYTES),
        ("bytes in its arrays", array_bytes, MAX_ARRAY_BYTES),
    ):
        if size > limit:
            raise FrameError(f"A frame has {size:,} {name}; at most {limit:,} are allowed.")


def _arrays(shapes: Sequence[Any], content: Any) -> list[ndarray]:
    """Return the arrays of the given types and shapes, which lie one after another in `content`."""
    found, start = [], 0
    for shape in shapes:
        try:
            name, lengths = shape
            dtype = TYPES[name]
            start += -start % ALIGNMENT
            if len(lengths) > MAX_AXES or min(lengths, default=0) < 0:
                raise ValueError("axes")
            array: ndarray = ndarray(lengths, dtype, content, start)
        except (TypeError, ValueError, KeyError) as error:
            raise FrameError(
                f"A frame with {len(content):,} bytes of arrays has no room for the array {str(shape)[:80]}, or its "
                f"type or shape is unknown ({error})."
            ) from None
        found.append(array)
        start += array.nbytes
    if start != len(content):
        raise FrameError(f"A frame has {len(content) - start:,} bytes after its last array.")
    return found
