"""Colours of a picture as sRGB with 8 bits: wide pixels scaled, colour profiles applied, transparency on a ground.

The user's own files and the pictures sent to the service are converted here in the same way:

- 16-bit grey keeps its high byte, so 65,535 is white. Whole numbers of 32 bits and floating-point numbers have no
  agreed white. Their range is the first of 0 to 1, 0 to 255 and 0 to 65,535 that holds all values; if none does, it is
  from the smallest to the largest value. NaN and infinite values are black.
- A colour profile (ICC) is applied, for grey, RGB, CMYK and Lab. A damaged profile, or a profile of another colour
  space than that of the pixels, is ignored, as browsers do.
- Transparent pixels show a ground: white, or grey or black if the visible pixels would not stand out from white.
"""

from io import BytesIO

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray
from PIL import Image, ImageCms

from model.errors import PictureError

from .image_headers import MAX_PROFILE_BYTES

WIDE_RANGES = (1, 255, 65_535)
"""Values that are white in a picture of 32-bit whole or floating-point numbers: the first that no value exceeds."""

GROUNDS = (255, 128, 0)
"""Luminance of the grounds of transparent pictures in order of preference: white, grey, black."""

MIN_CONTRAST = 32
"""Minimum difference in luminance (of 255) between a pixel and the ground, so that the pixel can be seen."""

MAX_HIDDEN_SHARE = 0.25
"""Maximum share of the visible pixels that may have less than `MIN_CONTRAST` to the ground."""

_TIFF_WHITE_IS_ZERO = (262, 0)
"""TIFF tag PhotometricInterpretation and its value for inverted grey (TIFF 6.0, section 4)."""

_TIFF_UNSIGNED = (339, 1)
"""TIFF tag SampleFormat and its value for unsigned whole numbers, which Pillow reads as signed ones."""

_SRGB = ImageCms.createProfile("sRGB")
_LAB = ImageCms.createProfile("LAB")


def in_rgb(picture: Image.Image, side: int | None = None, profile: bytes | None = None) -> Image.Image:
    """Return `picture` in sRGB (mode RGB), scaled to at most `side` pixels per side.

    `profile` is the colour profile; None: the profile in the file.

    Raises:
        PictureError: no pixel of a floating-point picture has a finite value, or the mode has no known colours.
    """
    profile = picture.info.get("icc_profile") if profile is None else profile
    picture = _in_bytes(picture)
    if side is not None and max(picture.size) > side:
        # Scale first: converting and compositing all pixels takes longer than decoding them.
        picture.thumbnail((side, side), Image.Resampling.BICUBIC)
    if picture.mode in ("LA", "RGBA"):
        alpha = picture.getchannel("A")
        colours = _in_srgb(picture.convert(picture.mode[:-1]), profile)
        shown = _on_ground(colours, alpha)
    else:
        shown = _in_srgb(picture, profile)
    shown.info.clear()  # a profile in it would be stored, and applied a second time
    return shown


def _in_bytes(picture: Image.Image) -> Image.Image:
    """Return `picture` in one of the modes L, LA, RGB, RGBA, CMYK and LAB, which have 8 bits per channel."""
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        return _narrowed(picture)
    if picture.mode in ("La", "RGBa"):  # premultiplied
        return picture.convert(picture.mode[:-1] + "A")
    if picture.mode in ("PA", "RGBA") or (picture.mode != "LA" and "transparency" in picture.info):
        return picture.convert("RGBA")
    if picture.mode in ("L", "LA", "RGB", "CMYK", "LAB"):
        return picture
    try:
        return picture.convert("L" if picture.mode == "1" else "RGB")
    except ValueError:
        raise PictureError(
            f"its colours (mode {picture.mode}) are not supported; convert it to PNG or JPEG"
        ) from None


def _narrowed(picture: Image.Image) -> Image.Image:
    """Return a picture with one wide channel (16 or 32 bits, whole or floating-point) as 8-bit grey."""
    tags = getattr(picture, "tag_v2", {})
    wide = np.asarray(picture)
    if picture.mode == "I" and tags.get(_TIFF_UNSIGNED[0]) == (_TIFF_UNSIGNED[1],):
        wide = wide.view(np.uint32)
    grey = (wide >> 8).astype(np.uint8) if picture.mode.startswith("I;16") else _stretched(wide)
    if tags.get(_TIFF_WHITE_IS_ZERO[0]) == _TIFF_WHITE_IS_ZERO[1]:
        grey = 255 - grey
    narrow = Image.fromarray(grey)
    clear = picture.info.get("transparency")
    if isinstance(clear, int):
        narrow.putalpha(Image.fromarray(np.where(wide == clear, 0, 255).astype(np.uint8)))
    return narrow


def _stretched(wide: ndarray) -> UInt8[ndarray, "height width"]:
    """Scale whole or floating-point values to 0 to 255 by the range that the module's docstring states."""
    finite = np.isfinite(wide)
    if not finite.any():
        raise PictureError("none of its pixels has a finite value; convert it to PNG or JPEG")
    low, high = float(wide[finite].min()), float(wide[finite].max())
    white = next((white for white in WIDE_RANGES if low >= 0 and high <= white), None)
    if white is not None:
        low, high = 0.0, float(white)
    # Halving first keeps the range of the largest floats from overflowing.
    share = (np.where(finite, wide, low).astype(np.float32) / 2 - low / 2) / ((high / 2 - low / 2) or 1.0)
    return np.round(255 * share).astype(np.uint8)


def _in_srgb(picture: Image.Image, profile: object) -> Image.Image:
    """Convert a picture of mode L, RGB, CMYK or LAB without transparency to sRGB, with its profile if it fits."""
    if isinstance(profile, bytes) and 0 < len(profile) <= MAX_PROFILE_BYTES:
        try:
            own = ImageCms.ImageCmsProfile(BytesIO(profile))
            return _transformed(picture, own)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # damaged, or of another colour space
    return _transformed(picture, _LAB) if picture.mode == "LAB" else picture.convert("RGB")


def _transformed(picture: Image.Image, profile: object) -> Image.Image:
    transform = ImageCms.buildTransform(profile, _SRGB, picture.mode, "RGB")  # type: ignore[arg-type]
    converted = ImageCms.applyTransform(picture, transform)
    assert converted is not None
    return converted


def _on_ground(picture: Image.Image, alpha: Image.Image) -> Image.Image:
    """Return `picture` (mode RGB) on the first of `GROUNDS` from which its visible pixels stand out."""
    weights = np.asarray(alpha, np.float64)
    ground = GROUNDS[0]
    if weights.sum() > 0 and weights.min() < 255:
        luminance = (
            np.bincount(np.asarray(picture.convert("L")).ravel(), weights.ravel(), 256) / weights.sum()
        )
        ground = next(
            (level for level in GROUNDS if luminance[_near(level)].sum() <= MAX_HIDDEN_SHARE), ground
        )
    return Image.composite(picture, Image.new("RGB", picture.size, (ground,) * 3), alpha)


def _near(level: int) -> Bool[ndarray, " levels"]:
    return np.abs(np.arange(256) - level) < MIN_CONTRAST
