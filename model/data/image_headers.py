"""Headers of a JPEG, PNG or WebP file, read before any decoder sees the file.

A decoder may take long over a small file: for its pixels, for its passes over them, or for what is no pixel at all
(a megabyte of EXIF that refers to itself, texts that inflate, a million empty segments). So a stranger's picture is
taken out of its container first: its size and the effort it will take are known, and a decoder is given its pixels
and nothing else. `model.data.images` asks; plain Python, without Pillow.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Format = Literal["JPEG", "PNG", "WEBP"]

MAX_CONTAINER_PARTS = 10_000
"""Segments of a JPEG, chunks of a PNG; a photograph of 10 MB has some 1,200."""

MAX_JPEG_TABLE_BYTES = 200_000
"""Bytes of a JPEG's tables ahead of its first scan; most have 1,000, and a thumbnail of JFIF at most 65,533 more."""

EXIF_ORIENTATION_TAG = 0x0112
"""The tag of EXIF that says how a camera was held (EXIF 2.3, table 4)."""

JPEG_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)
"""Baseline, extended and progressive, coded by Huffman: what browsers show. Others take many times longer."""

JPEG_OTHER_FRAMES = tuple({*range(0xC3, 0xD0)} - {0xC4, 0xC8, 0xCC})

JPEG_PIXEL_SEGMENTS = (*JPEG_HUFFMAN_FRAMES, 0xC4, 0xDB, 0xDD, 0xE0, 0xEE)
"""Segments that pixels depend on: frames, tables, and those of JFIF and Adobe, which name the colours."""

_FILL_BYTES = re.compile(rb"\xff+")
"""Any number of these may stand ahead of a marker."""

PNG_PIXEL_CHUNKS = (b"PLTE", b"tRNS", b"IDAT")


class ContainerError(Exception):
    """The bytes are not a sound container, and why, as the end of a sentence."""


@dataclass(frozen=True)
class Container:
    """A picture's size in pixels, what else its headers say, and `content`: the file without all but its pixels.

    `effort` is how many times as long a pixel takes to decode as one of a plain JPEG, at most and rounded up.
    `orientation` is 1 to 8, as in EXIF; what lies on its side is still so in `content`.
    """

    format: Format
    width: int
    height: int
    effort: int
    orientation: int
    content: bytes


def read_container(content: bytes) -> Container:
    """Read the headers of a picture, whatever it is called.

    Raises:
        ContainerError: it is no JPEG, PNG or WebP, or its headers are damaged, cut short or too many.
    """
    readers: dict[bytes, Callable[[bytes], Container]] = {
        b"\xff\xd8\xff": _read_jpeg,
        b"\x89PNG\r\n\x1a\n": _read_png,
        b"RIFF": _read_webp,
    }
    for magic, read in readers.items():
        if content.startswith(magic):
            try:
                return read(content)
            except (struct.error, IndexError):  # a field beyond the end
                raise ContainerError("it is cut short") from None
    raise ContainerError("it is neither JPEG, PNG nor WebP")


def _read_jpeg(content: bytes) -> Container:
    """Segments up to the first scan (ITU-T T.81, annex B); what follows is kept up to the end of the image."""
    kept, frame, orientation, tables = [content[:2]], None, 1, 0
    at = 2
    for _ in range(MAX_CONTAINER_PARTS):
        filling = _FILL_BYTES.match(content, at)
        if filling is None:
            raise ContainerError("it is damaged")
        at = filling.end()
        marker = content[at]
        (length,) = struct.unpack_from(">H", content, at + 1)
        segment = content[at + 3 : at + 1 + length]
        if marker == 0xDA:
            break
        if marker in JPEG_OTHER_FRAMES:
            raise ContainerError("it is a JPEG of an unusual coding")
        if marker in JPEG_HUFFMAN_FRAMES:
            if frame is not None:
                raise ContainerError("it is damaged")
            frame = struct.unpack_from(">HH", segment, 1)
        if marker == 0xE1 and segment.startswith(b"Exif\0\0") and orientation == 1:
            orientation = exif_orientation(segment)
        if marker in JPEG_PIXEL_SEGMENTS:
            kept.append(b"\xff" + content[at : at + 1 + length])
            tables += length
        if tables > MAX_JPEG_TABLE_BYTES:
            raise ContainerError("it has too many tables")
        at += 1 + length
    else:
        raise ContainerError("it has too many segments")
    if frame is None:
        raise ContainerError("it is damaged")
    end = content.find(b"\xff\xd9", at)
    scans = b"\xff" + content[at : end + 2 if end >= 0 else len(content)]
    height, width = frame
    # Within a scan 0xFF is followed by 0x00 or a restart marker, so this counts the scans: passes over the pixels. The
    # ten that a progressive JPEG usually has take twice as long as one; many more are there to take time.
    passes = scans.count(b"\xff\xda")
    effort = -(-passes * passes // 50)
    return Container("JPEG", width, height, effort, orientation, b"".join([*kept, scans]))


def _read_png(content: bytes) -> Container:
    """Chunks up to IEND (PNG, third edition, section 5); of an animation, the picture that stands for it."""
    kept, orientation = [content[:8]], 1
    at = 8
    for number in range(MAX_CONTAINER_PARTS):
        (length,) = struct.unpack_from(">I", content, at)
        kind, end = content[at + 4 : at + 8], at + 12 + length
        if end > len(content):
            raise ContainerError("it is cut short")
        if (kind == b"IHDR") != (number == 0):
            raise ContainerError("it is damaged")
        if kind == b"eXIf" and orientation == 1:
            orientation = exif_orientation(content[at + 8 : end - 4])
        if number == 0 or kind == b"IEND" or kind in PNG_PIXEL_CHUNKS:
            kept.append(content[at:end])
        at = end
        if kind == b"IEND":
            break
    else:
        raise ContainerError("it has too many chunks")
    width, height, depth, colours = struct.unpack_from(">IIBB", content, 16)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colours, 4)
    return Container("PNG", width, height, -(-bits // 6), orientation, b"".join(kept))


def _read_webp(content: bytes) -> Container:
    """Read the first chunk after the RIFF header (RFC 9649, section 2), and the orientation if there is one."""
    if content[8:12] != b"WEBP":
        raise ContainerError("it is neither JPEG, PNG nor WebP")
    kind, body = content[12:16], content[20:30]
    if kind == b"VP8X":
        width, height = (int.from_bytes(body[start : start + 3], "little") + 1 for start in (4, 7))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", body, 1)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", body, 6))
    else:
        raise ContainerError("it is damaged")
    return Container("WEBP", width, height, 5, _webp_orientation(content), content)


def _webp_orientation(content: bytes) -> int:
    at = 12
    for _ in range(MAX_CONTAINER_PARTS):
        if at + 8 > len(content):
            break
        kind, length = struct.unpack_from("<4sI", content, at)
        if kind == b"EXIF":
            return exif_orientation(content[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    return 1


def exif_orientation(exif: bytes) -> int:
    """Read the orientation from EXIF data, 1 to 8; 1 if there is none or the data is damaged.

    Nothing but the first directory is read, once: each of its entries may refer to all of the data.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, value = struct.unpack_from(order + "H6xH", tiff, entry)
            if tag == EXIF_ORIENTATION_TAG:
                return value if 1 <= value <= 8 else 1
    except struct.error:  # a directory beyond the end
        pass
    return 1
