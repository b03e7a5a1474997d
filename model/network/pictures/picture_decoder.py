"""Decoding of one picture as the image processor of a backbone does, and the part of the picture that it keeps."""

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

from model.data.pictures.colours import in_rgb
from model.data.pictures.images import local_refusals
from model.embeddings.attention_map import Box
from model.errors import InputError
from model.network.inputs import PictureInput

from .antialiased_resize import AntialiasedResize

MAX_RULER_SIDE = 256
"""Maximum length in pixels of the shorter side of the test picture in `PictureDecoder.shown`."""

MAX_RULER_LENGTH = 4096
"""Maximum length in pixels of the longer side of the test picture."""

MIN_RULER_SIDE = 8
"""Minimum length in pixels of the shorter side of the test picture. With fewer, positions cannot be told apart."""

MAX_RULER_ASPECT = 4
"""Ratio of the sides above which `shown` tests only the centre of a picture, if the network receives no more of it."""

MAX_ENLARGED_ASPECT = 32
"""Ratio of the sides above which only the centre of a picture is resized, if the network receives no more of it.

An image processor that resizes the shorter side to 224 pixels and then crops would otherwise enlarge a picture of
65,535 x 2 pixels, stored as 256 x 1, to 57,344 x 224. The result is the same to within a pixel. Up to this ratio, the
result is the same bit for bit.
"""

TRIAL_SIZES = ((256, 192), (171, 256), (45, 31), (30, 47), (600, 601), (16, 16))
"""Sizes of the pictures on which the fast way to resize must agree with the image processor."""

MAX_MEAN_DIFFERENCE = 0.05
MAX_DIFFERENCE = 4
"""Differences from the image processor, of 255, up to which both agree. A crop that is off by one pixel has 80."""


class PictureDecoder:
    """Image processor of a backbone without its last steps, rescaling and normalisation.

    Pictures are resized by torch if this gives the pixels of the processor, but for rounding, on a few trial pictures;
    otherwise, or if `exact`, by the processor itself.
    """

    def __init__(self, image_processor: Any, exact: bool = False) -> None:
        self.image_processor = image_processor
        self.shape = self._picture_shape()
        self._resize = None if exact else self._fast_resize()

    @property
    def settings(self) -> dict[str, Any]:
        """All that the decoded pixels depend on, for JSON."""
        return {
            "image_processor": self.image_processor.to_dict(),
            "resize": None if self._resize is None else str(self._resize),
            "pillow": PIL.__version__,
            "torch": torch.__version__,
        }

    def blank(self, count: int, file: Path | None = None) -> PictureInput:
        """Allocate space for `count` decoded pictures, in memory or in an array on disk at `file`."""
        shape = (count, *self.shape)
        if file is None:
            pixels = np.zeros(shape, np.uint8)
        else:
            pixels = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
        return PictureInput(torch.from_numpy(pixels), torch.zeros(count, 2, dtype=torch.int32))

    def decode_file(self, path: Path, into: PictureInput, row: int) -> None:
        """Decode the user's picture file at `path` into row `row` of `into`; see `decode`.

        Raises:
            PictureError: the file does not exist or cannot be decoded.
        """
        with local_refusals(path), Image.open(path) as picture:
            self.decode(picture, into, row)

    def decode(self, picture: Image.Image, into: PictureInput, row: int) -> None:
        """Resize and crop `picture` into row `row` of `into`, as uint8 pixels to save memory."""
        # Decode a JPEG at a reduced size, but at least twice the output size, as Pillow's thumbnail does.
        side = 2 * math.isqrt(math.prod(self.shape) // 3)
        picture.draft("RGB", (side, side))
        shown = self._centre(in_rgb(picture))
        # Assign with NumPy instead of torch, because several threads run this at once (see `inputs._rows`).
        if self._resize is not None:
            into.pixels.numpy()[row], into.grid.numpy()[row] = self._resize(shown), 0
            return
        processed = self.process(shown)
        into.pixels.numpy()[row] = _in_bytes(processed)
        into.grid.numpy()[row] = (
            np.asarray(processed["spatial_shapes"][0]) if "spatial_shapes" in processed else 0
        )

    def process(self, picture: Image.Image) -> Mapping[str, Any]:
        """Run the image processor on one picture, without rescaling and normalisation."""
        steps = {"do_rescale", "do_normalize"}
        if hasattr(self.image_processor, "include_top"):
            steps.add("include_top")
        processed: Mapping[str, Any] = self.image_processor(
            picture, return_tensors="np", **dict.fromkeys(steps, False)
        )
        return processed

    def shown(self, width: int, height: int) -> Box:
        """Return the part that `decode` keeps of a picture of `width` x `height` pixels.

        Its edges are accurate to one pixel of the decoded picture.

        Every image processor has its own rules for resizing, cropping and padding. This method therefore processes a
        test picture whose red and green values encode the position of each pixel, and decodes the positions from the
        result. Blue is 255 everywhere in the test picture, so a lower value marks padding.
        """
        if len(self.shape) < 3:
            return Box(0.0, 0.0, 1.0, 1.0)  # NaFlex resizes the whole picture
        left, top, right, bottom = self._needed(width, height, MAX_RULER_ASPECT)
        box = self._measured(right - left, bottom - top)
        if (left, top) == (0, 0):
            return box
        return Box(
            (left + box.left * (right - left)) / width,
            (top + box.top * (bottom - top)) / height,
            (left + box.right * (right - left)) / width,
            (top + box.bottom * (bottom - top)) / height,
        )

    def _centre(self, picture: Image.Image) -> Image.Image:
        """Return the part of `picture` that bounds the cost of resizing it; an ordinary picture is returned whole."""
        part = self._needed(*picture.size, MAX_ENLARGED_ASPECT)
        return picture if part == (0, 0, *picture.size) else picture.crop(part)

    def _needed(self, width: int, height: int, aspect: int) -> tuple[int, int, int, int]:
        """Return the left, top, right and bottom edge of the part of a picture that the image processor needs.

        This is the whole picture, unless its sides differ by more than the factor `aspect` and the image processor
        keeps only its centre. The part then has about this ratio, and the same centre.
        """
        across = down = 0
        if len(self.shape) == 3 and max(width, height) > aspect * min(width, height) and self._keeps_centre:
            across, down = (max(0, side - aspect * min(width, height)) // 2 for side in (width, height))
        return across, down, width - across, height - down

    @cached_property
    def _keeps_centre(self) -> bool:
        """Whether the image processor keeps a part of long pictures that does not grow with their length."""
        longer, longest = self._measured(64, 32), self._measured(128, 32)
        kept = 128 * (longest.right - longest.left)
        return longest.left > 0 and longest.right < 1 and kept < 1.5 * 64 * (longer.right - longer.left)

    def _measured(self, width: int, height: int) -> Box:
        """Measure the part that the image processor keeps of a picture of `width` x `height` pixels; see `shown`."""
        shorter = min(width, height)
        # For a small picture, the test picture is enlarged by an integer factor. Both then have exactly the same aspect
        # ratio, so the image processor rounds both sizes in the same way.
        scale = MAX_RULER_SIDE // shorter if shorter <= MAX_RULER_SIDE else MAX_RULER_SIDE / shorter
        if max(width, height) * scale > MAX_RULER_LENGTH:
            scale = max(MAX_RULER_LENGTH // max(width, height), MAX_RULER_LENGTH / max(width, height))
        columns, rows = (max(MIN_RULER_SIDE, round(side * scale)) for side in (width, height))
        ruler = np.full((rows, columns, 3), 255.0)
        across, down = (np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows
        # Mix a little of the y position into red and of the x position into green. The rounding errors of red then
        # differ from row to row (and those of green from column to column), so they average out.
        mixture = np.array([[0.9, 0.1], [0.1, 0.9]])
        ruler[:, :, :2] *= np.stack(np.meshgrid(across, down), axis=-1) @ mixture
        pixels = np.asarray(self.process(Image.fromarray(ruler.round().astype(np.uint8)))["pixel_values"][0])
        # Ignore values near the edges, which the resampling filter distorts.
        kept = (pixels[2] > 250) & (abs(pixels[:2] - 127.5) < 110).all(axis=0)
        y, x = np.nonzero(kept)
        places = np.column_stack([x + 0.5, y + 0.5, np.ones(len(x))])
        affine = np.linalg.lstsq(places, pixels[:2, kept].T / 255)[0] @ np.linalg.inv(mixture)
        corners = np.array([[0, 0, 1], [kept.shape[1], kept.shape[0], 1]]) @ affine
        left, top, right, bottom = (corners.round(3) + 0.0).ravel().tolist()  # + 0.0 turns -0.0 into 0.0
        return Box(left, top, right, bottom)

    def _fast_resize(self) -> AntialiasedResize | None:
        """Return the fast way to resize if it agrees with the image processor on all trial pictures."""
        resize = AntialiasedResize.of(self.image_processor) if len(self.shape) == 3 else None
        rng = np.random.default_rng(0)
        for width, height in TRIAL_SIZES if resize is not None else ():
            assert resize is not None
            noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
            for picture in (noise, noise.resize((5, 4)).resize((width, height), Image.Resampling.BICUBIC)):
                expected, found = _in_bytes(self.process(picture)), resize(picture)
                if found.shape != expected.shape:
                    return None
                difference = abs(found.astype(int) - expected)
                if difference.mean() > MAX_MEAN_DIFFERENCE or difference.max() > MAX_DIFFERENCE:
                    return None
        return resize

    def _picture_shape(self) -> tuple[int, ...]:
        """Return the shape of every decoded picture: `[3, height, width]` or `[patches, values]`."""
        shapes = {self.process(Image.new("RGB", size))["pixel_values"].shape[1:] for size in ((9, 6), (6, 9))}
        if len(shapes) > 1:
            raise InputError(
                f"The image processor ({type(self.image_processor).__name__}) outputs pictures of different "
                f"shapes ({' and '.join(map(str, sorted(shapes)))}). Set size or crop_size in "
                "preprocessor_config.json so that all pictures have the same shape."
            )
        shape: tuple[int, ...] = shapes.pop()
        return shape


def _in_bytes(processed: Mapping[str, Any]) -> np.ndarray:
    """Return the pixels of one processed picture as whole numbers from 0 to 255."""
    pixels = np.asarray(processed["pixel_values"][0])
    # Some processors resize in floating point.
    return pixels if pixels.dtype == np.uint8 else pixels.round().clip(0, 255).astype(np.uint8)
