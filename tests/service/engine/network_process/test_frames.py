"""Tests of frames: what is sent is received, and a changed frame is refused by name."""

import asyncio
import socket
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy import ndarray

from service.engine.network_process.frame_sender import FrameSender
from service.engine.network_process.frames import (
    MAX_ARRAY_BYTES,
    MAX_ARRAYS,
    MAX_HEADER_BYTES,
    TYPES,
    VERSION,
    Frame,
    FrameError,
    Prefix,
    decode,
    encode,
    receive,
    receive_from_stream,
)

ARRAYS = st.lists(
    arrays.arrays(
        st.sampled_from(sorted(TYPES.values(), key=str)),
        arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    ),
    max_size=4,
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
BODIES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FRAMES = st.builds(Frame, st.text(max_size=9), st.integers(0, 2**53), BODIES, ARRAYS)


def sent(frame: Frame) -> bytes:
    return b"".join(encode(frame))


def received(content: bytes) -> Frame | None:
    """Return the frame that a process reads if another one sends `content` and ends."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        sender = FrameSender(theirs)
        sender.send([content])
        sender.close()
        theirs.shutdown(socket.SHUT_WR)
        return receive(ours.makefile("rb"))


def assert_equal(one: Frame | None, other: Frame) -> None:
    assert one is not None
    assert (one.kind, one.job, one.body) == (other.kind, other.job, other.body)
    assert len(one.arrays) == len(other.arrays)
    for mine, theirs in zip(one.arrays, other.arrays, strict=True):
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        assert mine.tobytes() == theirs.tobytes()


@given(FRAMES)
def test_what_is_sent_is_received(frame: Frame) -> None:
    assert_equal(received(sent(frame)), frame)


@given(FRAMES)
def test_what_is_sent_is_received_from_a_stream(frame: Frame) -> None:
    async def scenario() -> Frame:
        reader = asyncio.StreamReader()
        reader.feed_data(sent(frame))
        return await receive_from_stream(reader)

    assert_equal(asyncio.run(scenario()), frame)


def damaged(content: bytes, place: int, byte: int, cut: int) -> bytes:
    """Change one byte of a frame, and cut off the last `cut` bytes."""
    place %= len(content)
    changed = content[:place] + bytes([byte]) + content[place + 1 :]
    return changed[: len(changed) - min(cut, len(changed) - 1)]


MUTATIONS = (FRAMES, st.integers(0, 10**6), st.integers(0, 255), st.sampled_from([0, 0, 1, 7, 10**6]))


@given(*MUTATIONS)
@example(Frame("job", 1, None, [np.zeros(2, np.float32)]), 16, 255, 0)
def test_changed_frame_is_refused_by_name_or_still_a_frame(
    frame: Frame, place: int, byte: int, cut: int
) -> None:
    content = damaged(sent(frame), place, byte, cut)
    try:
        prefix = Prefix.read(content[: Prefix.LAYOUT.size].ljust(Prefix.LAYOUT.size, b"\0"))
        header, rest = (
            content[Prefix.LAYOUT.size :][: prefix.header_bytes],
            content[Prefix.LAYOUT.size + prefix.header_bytes :],
        )
        found = decode(prefix, header, bytearray(rest[: prefix.array_bytes]))
    except FrameError:
        return
    assert isinstance(found.kind, str)
    assert sum(array.nbytes for array in found.arrays) <= len(rest)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", r"begins with b'GET ' instead of b'rcml'"),
        (Prefix.LAYOUT.pack(b"rcml", VERSION + 1, 0, 2, 0), f"has version {VERSION + 1}"),
        (Prefix.LAYOUT.pack(b"rcml", VERSION, MAX_ARRAYS + 1, 2, 0), "17 arrays; at most 16"),
        (Prefix.LAYOUT.pack(b"rcml", VERSION, 0, MAX_HEADER_BYTES + 1, 0), "8,388,609 bytes in its header"),
        (Prefix.LAYOUT.pack(b"rcml", VERSION, 0, 2, MAX_ARRAY_BYTES + 1), "536,870,913 bytes in its arrays"),
        (Prefix.LAYOUT.pack(b"rcml", VERSION, 0, 2, 0) + b"{}", "exactly the fields"),
        (Prefix.LAYOUT.pack(b"rcml", VERSION, 0, 2, 0) + b"{", "in the middle of a frame"),
        (Prefix.LAYOUT.pack(b"rcml", VERSION, 0, 2, 0) + b"{]", "is not JSON"),
        (b"rcml", "in the middle of a frame"),
    ],
)
def test_content_that_is_no_frame_is_refused_by_name(content: bytes, reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        received(content)


def header(shapes: Any) -> bytes:
    return orjson.dumps({"kind": "job", "job": 1, "body": None, "arrays": shapes})


@pytest.mark.parametrize(
    "shape",
    [
        ["|O", [1]],
        ["<f4", [3]],
        ["<f4", [-1]],
        ["<f4", [2**62, 2**62]],
        ["<f4", [0.5]],
        ["<f4", "ab"],
        ["<f4", [1, 1, 1, 1, 1]],
        ["<f4", {}],
        "<f4",
        None,
        [[], [1]],
    ],
)
def test_array_of_unknown_type_or_shape_is_refused_by_name(shape: Any) -> None:
    with pytest.raises(FrameError, match=r"no room for the array|bytes after its last array"):
        decode(Prefix(1, 0, 8), header([shape]), bytearray(8))


@pytest.mark.parametrize(
    "array", [np.array([None]), np.zeros(1, np.int16), np.zeros((1,) * 5, np.float32)], ids=str
)
def test_array_that_no_frame_may_contain_is_not_sent(array: ndarray) -> None:
    with pytest.raises(FrameError, match="cannot be sent"):
        encode(Frame("job", 1, None, [array]))


def test_text_that_is_not_utf_8_is_not_sent() -> None:
    with pytest.raises(FrameError, match="cannot be sent"):
        encode(Frame("job", 1, "\ud800"))


def test_sender_does_not_block_and_keeps_the_order_of_large_frames() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        sender = FrameSender(theirs)
        pixels = np.arange(2**20, dtype=np.uint32).view(np.uint8)  # no kernel takes 4 MiB at once
        for number in range(5):
            sender.send(encode(Frame("job", number, None, [pixels[: pixels.size >> number]])))
        source = ours.makefile("rb")
        found = [receive(source) for _ in range(5)]
        sender.close()
    assert [frame.job for frame in found if frame is not None] == [0, 1, 2, 3, 4]
    assert all(frame and (frame.arrays[0] == pixels[: pixels.size >> frame.job]).all() for frame in found)
