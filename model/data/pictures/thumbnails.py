"""Small copies of item pictures for the report."""

from pathlib import Path

from PIL import Image, ImageOps

from model.errors import PictureError

from .images import load_picture


def thumbnail(path: Path | None, side: int) -> Image.Image | None:
    """Return the picture with `side` pixels on its longer side; None if there is none or it cannot be decoded."""
    if path is None:
        return None
    try:
        picture = load_picture(path)
    except PictureError:
        return None
    return ImageOps.contain(picture, (side, side), Image.Resampling.LANCZOS)
