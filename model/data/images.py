"""Pictures from files: those of the user, and, with more care, those of strangers.

The one place that knows what Pillow raises: it has no common error, and tells damage by nearly anything. Both ways
lead to a `PictureError`. `model.data.prepare` and `indexes.builder.embed` read the user's own files; the service and
whatever fetches pictures decode a stranger's bytes with `decode_picture`. Free of torch.
"""

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from model.errors import PictureError

from .image_headers import Container, ContainerError, read_container

MAX_UNTRUSTED_BYTES = 10_000_000
"""Of a stranger's file. The time that pixels take grows with the bytes they are coded in."""

MAX_UNTRUSTED_PIXELS = 24_000_000
"""Of a stranger's plain JPEG; of one that takes n times as long to decode, an n-th (`Container.effort`).

So a picture takes 250 ms at most: a JPEG of 24 megapixels, a progressive one of 12, a PNG of 6 (4 with transparency),
a WebP of 4.8.
"""

MAX_UNTRUSTED_SIDE = 65_535
"""Of a stranger's picture, in pixels, as in a JPEG: a PNG of one column may take as long as one of ten times its size.
"""

DEFAULT_PICTURE_SIDE = 256
"""The longest side that pictures are prepared with unless the user chooses (`PrepareConfig.picture_size`)."""

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
"""What Pillow raises over a picture that it cannot read: there is no base class, and its parsers trip over their input.
"""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow's own limit only warns at first; ours refuse, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

# Its doubts about a tag are nothing that whoever reads the log could act upon.
warnings.filterwarnings("ignore", module=r"PIL\.")


@contextmanager
def local_refusals(path: Path) -> Iterator[None]:
    """Turn whatever Pillow raises over the user's file at `path` into a `PictureError` that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise PictureError(f"picture {path.name} does not exist") from None
    except UnidentifiedImageError:
        raise PictureError(
            f"picture {path.name} cannot be decoded (it is of no format that is known)"
        ) from None
    except PILLOW_ERRORS as error:
        raise PictureError(f"picture {path.name} cannot be decoded ({error})") from None


def load_picture(path: Path) -> Image.Image:
    """Decode a picture of the user's, in any format that Pillow knows; RGB.

    Raises:
        PictureError: it is not there, or cannot be decoded.
    """
    with local_refusals(path), Image.open(path) as picture:
        picture.load()
        return picture.convert("RGB")


def decode_picture(
    content: bytes, side: int = DEFAULT_PICTURE_SIDE, max_pixels: int = MAX_UNTRUSTED_PIXELS
) -> Image.Image:
    """Decode a picture of a stranger's as `rcml prepare` would have: upright, on white, RGB, `side` pixels at most.

    Only JPEG, PNG and WebP are read, by content; of an animation, the first picture. The size is checked before
    anything is decoded, and nothing but pixels and EXIF's orientation is looked at.

    Raises:
        PictureError: it is of another format, damaged, cut short, or too large; it says nothing of this machine.
    """
    if len(content) > MAX_UNTRUSTED_BYTES:
        raise PictureError(
            f"The picture has {len(content):,} bytes, and at most {MAX_UNTRUSTED_BYTES:,} are decoded. "
            "Send a smaller one."
        )
    try:
        container = read_container(content)
        _check_size(container, max_pixels)
        with Image.open(BytesIO(container.content), formats=(container.format,)) as picture:
            if picture.size != (container.width, container.height):
                raise ContainerError("its headers contradict each other")
            picture.draft("RGB", (side, side))
            upright = shrunk(picture, side)
    except ContainerError as error:
        raise _undecodable(str(error)) from None
    except PILLOW_ERRORS:
        raise _undecodable("it is damaged or cut short") from None
    turn = _TURNS.get(container.orientation)
    return upright if turn is None else upright.transpose(turn)


def shrunk(picture: Image.Image, side: int) -> Image.Image:
    """`picture` in RGB, what is transparent in white, scaled to at most `side` pixels a side."""
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        # Scaled first: to lay all of its pixels on white takes longer than to decode them.
        picture.thumbnail((side, side), Image.Resampling.BICUBIC)
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("RGB")
    picture.thumbnail((side, side), Image.Resampling.BICUBIC)
    return picture


def _check_size(container: Container, max_pixels: int) -> None:
    if max(container.width, container.height) > MAX_UNTRUSTED_SIDE:
        raise PictureError(
            f"The picture has {container.width} x {container.height} pixels, and at most {MAX_UNTRUSTED_SIDE:,} a side "
            "are decoded. Send a smaller one."
        )
    most = max_pixels // max(1, container.effort)
    if container.width * container.height > most:
        raise PictureError(
            f"The picture has {container.width} x {container.height} pixels, and of a {container.format} like it at "
            f"most {most:,} are decoded. Send a smaller one."
        )


def _undecodable(reason: str) -> PictureError:
    return PictureError(f"The picture cannot be decoded: {reason}. Send a whole JPEG, PNG or WebP.")
