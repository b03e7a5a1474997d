"""Decoding of pictures: the user's own files, which are trusted, and untrusted bytes sent to the service.

Pillow raises almost any exception for a damaged picture. This module converts all of them to `PictureError`.
`model.data.prepare` and `indexes.builder.embed` decode the user's own files. The service decodes untrusted bytes with
`decode_picture`. This module does not import torch.
"""

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from model.errors import PictureError

from .colours import in_rgb
from .image_headers import Container, ContainerError, read_container

MAX_UNTRUSTED_BYTES = 10_000_000
"""Maximum size of an untrusted file in bytes. The decoding time grows with it."""

MAX_UNTRUSTED_PIXELS = 24_000_000
"""Maximum number of pixels of an untrusted baseline JPEG.

For a picture that takes n times as long to decode, the maximum is 1/n of this number (`Container.effort`): 12 million
for a typical progressive JPEG, 6 million for a PNG (4 million with transparency) and 4.8 million for a WebP. Decoding
therefore takes at most 250 ms.
"""

MAX_UNTRUSTED_SIDE = 65_535
"""Maximum width and height of an untrusted picture in pixels, which is the limit of JPEG.

A PNG with a single column may take as long to decode as a PNG with ten times as many pixels.
"""

DEFAULT_PICTURE_SIDE = 256
"""Default longest side of prepared pictures in pixels (`PrepareConfig.picture_size`)."""

PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    RuntimeError,
    EOFError,
    LookupError,
    ArithmeticError,
    TypeError,
    AttributeError,
    AssertionError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""Exceptions that Pillow raises for a picture that it cannot read.

They have no common base class, and many are unintended failures of its parsers, such as a TypeError.
"""

MAX_FRAMES = 50
"""Maximum number of frames of an animation that are searched for one that is not blank."""

MAX_BLANK_SPREAD = 8
"""Maximum difference between the pixels of a blank picture in each channel, of 255: the noise of a JPEG."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow's own limit only warns at first. The limits above reject a picture before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

# Pillow's warnings about invalid tags are useless in a log, because nobody can act on them.
warnings.filterwarnings("ignore", module=r"PIL\.")


@contextmanager
def local_refusals(path: Path) -> Iterator[None]:
    """Convert Pillow's exceptions for the user's file at `path` to a `PictureError` that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise PictureError(f"picture {path.name} does not exist") from None
    except PictureError as error:
        raise PictureError(f"picture {path.name} cannot be decoded ({error})") from None
    except UnidentifiedImageError:
        raise PictureError(
            f"picture {path.name} cannot be decoded (its format is unknown); convert it to PNG or JPEG"
        ) from None
    except PILLOW_ERRORS as error:
        raise PictureError(f"picture {path.name} cannot be decoded ({error})") from None


def load_picture(path: Path) -> Image.Image:
    """Decode the user's picture file at `path` to RGB. All formats that Pillow reads are supported.

    Raises:
        PictureError: the file does not exist or cannot be decoded.
    """
    with local_refusals(path), Image.open(path) as picture:
        return in_rgb(picture)


def decode_picture(
    content: bytes, side: int = DEFAULT_PICTURE_SIDE, max_pixels: int = MAX_UNTRUSTED_PIXELS
) -> Image.Image:
    """Decode an untrusted picture as `rcml prepare` does: upright, in sRGB, at most `side` pixels per side.

    JPEG, PNG and WebP are supported; the format is detected by content. Of an animation, the first frame that is not
    blank is decoded, among those whose pixels together are within `max_pixels`. The size is checked before anything is
    decoded. All metadata except the EXIF orientation and the colour profile is ignored.

    Raises:
        PictureError: the format is not supported, or the picture is damaged, truncated or too large. The message
            contains no details of this machine.
    """
    if len(content) > MAX_UNTRUSTED_BYTES:
        raise PictureError(
            f"The picture has {len(content):,} bytes; at most {MAX_UNTRUSTED_BYTES:,} are allowed. "
            "Send a smaller picture."
        )
    try:
        container = read_container(content)
        _check_size(container, max_pixels)
        shown = _decoded(container, container.content, side, frames=1)
        if container.animation and is_blank(shown):
            affordable = max_pixels // max(1, container.effort * container.width * container.height)
            with suppress(ContainerError, *PILLOW_ERRORS):  # then the blank frame is kept
                shown = _decoded(container, container.animation, side, min(MAX_FRAMES, affordable))
    except ContainerError as error:
        raise _undecodable(str(error)) from None
    except PILLOW_ERRORS:
        raise _undecodable("it is damaged or truncated") from None
    return turned(shown, container.orientation)


def _decoded(container: Container, content: bytes, side: int, frames: int) -> Image.Image:
    with Image.open(BytesIO(content), formats=(container.format,)) as picture:
        if picture.size != (container.width, container.height):
            raise ContainerError("its headers are inconsistent")
        picture.info["icc_profile"] = container.profile
        return first_frame(picture, side, frames)


def first_frame(picture: Image.Image, side: int, frames: int = MAX_FRAMES) -> Image.Image:
    """Return the first of at most `frames` frames that is not blank, in sRGB, with at most `side` pixels per side.

    If all frames are blank, the first is returned.

    Raises:
        PictureError: the colours of the picture are not supported.
    """
    picture.draft("RGB", (side, side))
    profile = picture.info.get("icc_profile")
    # Later frames of an animation are drawn over the frame before, which must therefore stay as it is.
    first = in_rgb(picture.copy() if frames > 1 else picture, side, profile)
    if frames == 1 or not is_blank(first):
        return first
    for number in range(1, frames):
        try:
            picture.seek(number)
            later = in_rgb(picture.copy(), side, profile)
        except PILLOW_ERRORS:  # there is no such frame, or it is damaged
            break
        if not is_blank(later):
            return later
    return first


def is_blank(picture: Image.Image) -> bool:
    """Tell whether all pixels of a picture of mode RGB have nearly the same colour."""
    return all(
        channel.getextrema()[1] - channel.getextrema()[0] <= MAX_BLANK_SPREAD  # type: ignore[operator]
        for channel in picture.split()
    )


def turned(picture: Image.Image, orientation: int) -> Image.Image:
    """Return `picture` upright, given the `orientation` of the camera in EXIF (1 to 8)."""
    turn = _TURNS.get(orientation)
    return picture if turn is None else picture.transpose(turn)


def _check_size(container: Container, max_pixels: int) -> None:
    if max(container.width, container.height) > MAX_UNTRUSTED_SIDE:
        raise PictureError(
            f"The picture has {container.width} x {container.height} pixels; at most {MAX_UNTRUSTED_SIDE:,} per side "
            "are allowed. Send a smaller picture."
        )
    most = max_pixels // max(1, container.effort)
    if container.width * container.height > most:
        raise PictureError(
            f"The picture has {container.width} x {container.height} pixels; at most {most:,} are allowed for a "
            f"{container.format} with this encoding. Send a smaller picture."
        )


def _undecodable(reason: str) -> PictureError:
    return PictureError(f"The picture cannot be decoded: {reason}. Send a complete JPEG, PNG or WebP file.")
