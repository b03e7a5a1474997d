"""Long pictures: their cost in the network's thread is bounded, and the network receives the same part of them."""

from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from model.network.pictures.picture_decoder import (
    MAX_ENLARGED_ASPECT,
    MAX_RULER_ASPECT,
    MAX_RULER_LENGTH,
    MAX_RULER_SIDE,
    PictureDecoder,
)

SIDE = 48
PROCESSORS: dict[str, Any] = {
    "clip": CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
    "crop larger than the shorter side": CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": 2 * SIDE, "width": 2 * SIDE}
    ),
    "resized, then cropped": CLIPImageProcessorPil(
        size={"height": 64, "width": 60}, crop_size={"height": 40, "width": 47}
    ),
    "siglip": SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}),
}
LONG = ((256, 1), (1, 256), (65_535, 2), (2, 65_535), (300, 7), (4000, 1))


class Counted(PictureDecoder):
    """Decoder that records the size of every picture that the image processor or the fast resize receives."""

    def __init__(self, image_processor: Any, exact: bool) -> None:
        super().__init__(image_processor, exact)
        self.received: list[tuple[int, int]] = []
        if (resize := self._resize) is not None:

            def counted(picture: Image.Image) -> Any:
                self.received.append(picture.size)
                return resize(picture)

            self._resize = counted  # type: ignore[assignment]

    def process(self, picture: Image.Image) -> Any:
        if hasattr(self, "received"):
            self.received.append(picture.size)
        return super().process(picture)

    @property
    def enlarged_pixels(self) -> int:
        """Largest number of pixels of a picture, as received or with its shorter side scaled to `SIDE` pixels."""
        return max(
            max(width * height, SIDE**2 * max(width, height) // min(width, height))
            for width, height in self.received
        )


def striped(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def decoded(decoder: PictureDecoder, picture: Image.Image) -> np.ndarray:
    room = decoder.blank(1)
    decoder.decode(picture, room, 0)
    pixels: np.ndarray = room.pixels.numpy()[0]
    return pixels


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", ["clip", "crop larger than the shorter side"])
@pytest.mark.parametrize("size", LONG)
def test_cost_of_a_cropped_picture_does_not_grow_with_its_length(
    name: str, size: tuple[int, int], exact: bool
) -> None:
    decoder = Counted(PROCESSORS[name], exact)
    decoded(decoder, striped(*size))
    decoder.shown(*size)
    assert decoder.enlarged_pixels <= MAX_RULER_SIDE**2 * (MAX_ENLARGED_ASPECT + 1)


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", LONG)
def test_test_picture_of_a_long_picture_is_bounded(name: str, size: tuple[int, int]) -> None:
    decoder = Counted(PROCESSORS[name], exact=True)
    decoder.shown(*size)
    assert max(width * height for width, height in decoder.received) <= MAX_RULER_LENGTH * MAX_RULER_SIDE


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", [(400, 300), (4000, 200), (200, 4000), (32 * 9, 9)])
def test_picture_up_to_the_limit_is_resized_whole(name: str, size: tuple[int, int]) -> None:
    decoder = PictureDecoder(PROCESSORS[name], exact=True)
    expected = np.asarray(decoder.process(striped(*size))["pixel_values"][0])
    assert (decoded(decoder, striped(*size)) == expected).all()


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", [(320, 5), (321, 5), (6, 400), (7, 401), (256, 1)])
def test_longer_picture_has_the_same_pixels_but_for_rounding(name: str, size: tuple[int, int]) -> None:
    decoder = PictureDecoder(PROCESSORS[name], exact=True)
    expected = np.asarray(decoder.process(striped(*size))["pixel_values"][0]).astype(int)
    difference = abs(decoded(decoder, striped(*size)) - expected)
    assert difference.mean() < 10  # noise of which another part is shown has 80


@pytest.mark.parametrize("length", [33, 64, 256])
def test_box_of_a_long_picture_is_the_square_in_its_middle(length: int) -> None:
    decoder = PictureDecoder(PROCESSORS["clip"])
    wide, tall = decoder.shown(10 * length, 10), decoder.shown(10, 10 * length)
    expected = (0.5 - 0.5 / length, 0.0, 0.5 + 0.5 / length, 1.0)
    assert (wide.left, wide.top, wide.right, wide.bottom) == pytest.approx(expected, abs=2e-3)
    assert (tall.top, tall.left, tall.bottom, tall.right) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("size", [(2560, 10), (10, 2560)])
def test_processor_that_keeps_whole_pictures_keeps_whole_long_pictures(size: tuple[int, int]) -> None:
    box = PictureDecoder(PROCESSORS["siglip"]).shown(*size)
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx((0, 0, 1, 1), abs=2e-3)


def test_box_agrees_on_both_sides_of_the_limit() -> None:
    decoder = PictureDecoder(PROCESSORS["clip"])
    below, above = decoder.shown(100 * MAX_RULER_ASPECT, 100), decoder.shown(100 * MAX_RULER_ASPECT + 2, 100)
    assert below.left == pytest.approx(above.left, abs=3e-3)
    assert below.right == pytest.approx(above.right, abs=3e-3)
