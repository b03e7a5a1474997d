"""Headers of a JPEG, PNG or WebP file, parsed before any decoder sees the file.

Even a small file can take a long time to decode. The reason can be the number of pixels, the number of passes over
them, or other data: a megabyte of EXIF that refers to itself, compressed texts, or a million empty segments. This
module therefore parses the container of an untrusted picture first. It returns the size, an estimate of the decoding
time, and the pixel data without the rest of the file (a WebP stays whole). The module is plain Python without Pillow.
"""

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Format = Literal["JPEG", "PNG", "WEBP"]

MAX_CONTAINER_PARTS = 10_000
"""Maximum number of segments of a JPEG or chunks of a PNG; a PNG of 10 MB usually has about 1,200 chunks."""

MAX_JPEG_TABLE_BYTES = 200_000
"""Maximum size in bytes of the tables before the first scan of a JPEG.

Most files have about 1,000 bytes of tables, and a JFIF thumbnail adds at most 65,533.
"""

MAX_PROFILE_BYTES = 4_000_000
"""Maximum size of a colour profile in bytes; profiles of printing presses have up to 3 MB. A larger one is ignored."""

EXIF_ORIENTATION_TAG = 0x0112
"""EXIF tag of the orientation of the camera (EXIF 2.3, table 4)."""

JPEG_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)
"""Markers of Huffman-coded frames, which browsers support: baseline, extended and progressive.

Other frames take many times longer to decode.
"""

JPEG_OTHER_FRAMES = tuple({*range(0xC3, 0xD0)} - {0xC4, 0xC8, 0xCC})

JPEG_PIXEL_SEGMENTS = (*JPEG_HUFFMAN_FRAMES, 0xC4, 0xDB, 0xDD, 0xE0, 0xEE)
"""Markers of the segments that decoding needs: frames, tables, and JFIF and Adobe segments (for the colour space)."""

_FILL_BYTES = re.compile(rb"\xff+")
"""Bytes before the code of a marker: one 0xFF byte, or several if there are fill bytes."""

PNG_PIXEL_CHUNKS = (b"PLTE", b"tRNS", b"IDAT")

PNG_FRAME_CHUNKS = (b"acTL", b"fcTL", b"fdAT")
"""Chunks of the further frames of an animation (PNG, third edition, section 11.3.4)."""

JPEG_PROFILE_MARK = b"ICC_PROFILE\0"
"""Beginning of an APP2 segment with a part of a colour profile; its number and the number of parts follow."""


class ContainerError(Exception):
    """Invalid container of a picture. The message states the reason, such as "it is truncated"."""


@dataclass(frozen=True)
class Container:
    """Container of a picture: its size in pixels, its orientation, and `content`, the file reduced to pixel data.

    The `content` of a WebP is the whole file. `effort` is the maximum decoding time per pixel, relative to a baseline
    JPEG and rounded up. `orientation` is 1 to 8, as in EXIF; it is not yet applied to `content`. `profile` is the ICC
    colour profile, empty if there is none. `animation` is a file with all frames, empty if there is only one.
    """

    format: Format
    width: int
    height: int
    effort: int
    orientation: int
    content: bytes
    profile: bytes = b""
    animation: bytes = b""


def read_container(content: bytes) -> Container:
    """Read the headers of a picture; the format is detected by content.

    Raises:
        ContainerError: the content is not a JPEG, PNG or WebP, or it has damaged, truncated or too many headers.
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
            except (struct.error, IndexError):  # a field extends beyond the end
                raise ContainerError("it is truncated") from None
    raise ContainerError("it is not a JPEG, PNG or WebP")


def _read_jpeg(content: bytes) -> Container:
    """Read the segments up to the first scan (ITU-T T.81, annex B); keep the scans up to the end of the image."""
    kept, frame, orientation, tables = [content[:2]], None, 1, 0
    profile: dict[int, bytes] = {}
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
            raise ContainerError("it is a JPEG with an unsupported encoding")
        if marker in JPEG_HUFFMAN_FRAMES:
            if frame is not None:
                raise ContainerError("it is damaged")
            frame = struct.unpack_from(">HH", segment, 1)
        if marker == 0xE1 and segment.startswith(b"Exif\0\0") and orientation == 1:
            orientation = exif_orientation(segment)
        if marker == 0xE2 and segment.startswith(JPEG_PROFILE_MARK) and len(segment) > 14:
            profile[segment[12]] = segment[14:]
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
    # 0xFF 0xDA starts a scan. It cannot occur within a scan, where 0xFF is followed by 0x00 or a restart marker.
    # Each scan is a pass over the pixels. The usual ten scans of a progressive JPEG take twice as long as one; many
    # more indicate an attack.
    passes = scans.count(b"\xff\xda")
    effort = -(-passes * passes // 50)
    parts = b"".join(part for _, part in sorted(profile.items()))
    return Container("JPEG", width, height, effort, orientation, b"".join([*kept, scans]), parts)


def _read_png(content: bytes) -> Container:
    """Read the chunks up to IEND (PNG, third edition, section 5), and keep only the default image of an animation."""
    kept, moving, orientation, profile = [content[:8]], [content[:8]], 1, b""
    at = 8
    for number in range(MAX_CONTAINER_PARTS):
        (length,) = struct.unpack_from(">I", content, at)
        kind, end = content[at + 4 : at + 8], at + 12 + length
        if end > len(content):
            raise ContainerError("it is truncated")
        if (kind == b"IHDR") != (number == 0):
            raise ContainerError("it is damaged")
        if kind == b"eXIf" and orientation == 1:
            orientation = exif_orientation(content[at + 8 : end - 4])
        if number == 0 or kind == b"IEND" or kind in PNG_PIXEL_CHUNKS:
            kept.append(content[at:end])
        if number == 0 or kind == b"IEND" or kind in (*PNG_PIXEL_CHUNKS, *PNG_FRAME_CHUNKS):
            moving.append(content[at:end])
        if kind == b"iCCP":
            profile = _png_profile(content[at + 8 : end - 4])
        at = end
        if kind == b"IEND":
            break
    else:
        raise ContainerError("it has too many chunks")
    width, height, depth, colours = struct.unpack_from(">IIBB", content, 16)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colours, 4)
    animation = b"".join(moving) if len(moving) > len(kept) else b""
    return Container("PNG", width, height, -(-bits // 6), orientation, b"".join(kept), profile, animation)


def _png_profile(chunk: bytes) -> bytes:
    """Return the colour profile in an iCCP chunk, or nothing if it is damaged or larger than a profile may be."""
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(chunk.partition(b"\0")[2][1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return b""
    return profile if unpacker.eof else b""


def _read_webp(content: bytes) -> Container:
    """Read the first chunk after the RIFF header (RFC 9649, section 2), and the orientation if available."""
    if content[8:12] != b"WEBP":
        raise ContainerError("it is not a JPEG, PNG or WebP")
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
    chunks = _webp_chunks(content)
    animation = content if b"ANMF" in chunks else b""
    orientation = exif_orientation(chunks.get(b"EXIF", b""))
    return Container("WEBP", width, height, 5, orientation, content, chunks.get(b"ICCP", b""), animation)


def _webp_chunks(content: bytes) -> dict[bytes, bytes]:
    """Return the first chunk of each kind that is not a picture itself, and an empty one for frames (ANMF)."""
    found: dict[bytes, bytes] = {}
    at = 12
    for _ in range(MAX_CONTAINER_PARTS):
        if at + 8 > len(content):
            break
        kind, length = struct.unpack_from("<4sI", content, at)
        if kind in (b"EXIF", b"ICCP"):
            found.setdefault(kind, content[at + 8 : at + 8 + length])
        elif kind == b"ANMF":
            found[kind] = b""
        at += 8 + length + length % 2
    return found


def exif_orientation(exif: bytes) -> int:
    """Return the orientation in EXIF data, 1 to 8, or 1 if it is missing or the data is damaged.

    Only the first directory is read, and only once, because each of its entries may refer to all of the data.
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
    except struct.error:  # the directory extends beyond the end
        pass
    return 1
