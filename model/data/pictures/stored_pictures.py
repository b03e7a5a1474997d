"""Pictures as `rcml prepare` and the service store them: upright, in sRGB, scaled, as PNG or JPEG."""

from io import BytesIO
from pathlib import Path

from PIL import Image

from model.errors import PictureError

from .image_headers import EXIF_ORIENTATION_TAG
from .images import first_frame, local_refusals, turned

MAX_SOURCE_PIXELS = 64_000_000
"""Maximum number of pixels of a picture. Larger pictures are skipped, because decoding them takes hundreds of MB."""


def encode_picture(picture: Image.Image, lossless: bool) -> tuple[bytes, str]:
    """Encode a scaled picture as PNG if `lossless`, otherwise as JPEG; return its bytes and its file suffix."""
    file = BytesIO()
    if lossless:
        picture.save(file, "PNG", compress_level=1)
        return file.getvalue(), ".png"
    picture.save(file, "JPEG", quality=90)
    return file.getvalue(), ".jpg"


def scale_picture(source: Path, target: Path, size: int) -> str:
    """Write a scaled copy of `source` to `target` plus a suffix, and return the suffix.

    The copy is upright, in sRGB, and has at most `size` pixels per side. Of an animation or a file of several pages, it
    shows the first one that is not blank.

    Raises:
        PictureError: the file does not exist, is damaged or not a picture, or has more than `MAX_SOURCE_PIXELS`.
    """
    with local_refusals(source), Image.open(source) as picture:
        if picture.width * picture.height > MAX_SOURCE_PIXELS:
            raise PictureError(
                f"it has {picture.width} x {picture.height} pixels; at most {MAX_SOURCE_PIXELS:,} are allowed. Scale it"
            )
        lossless = picture.format == "PNG"
        orientation = picture.getexif().get(EXIF_ORIENTATION_TAG, 1)
        upright = turned(first_frame(picture, size), orientation)
    content, suffix = encode_picture(upright, lossless)
    target.with_suffix(suffix).write_bytes(content)
    return suffix
