"""Fast resizing: the pixels of the image processor but for rounding, or the processor itself if it has other steps."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from model.network.pictures.antialiased_resize import VECTOR_UNITS, AntialiasedResize, vertical_first
from model.network.pictures.picture_decoder import PictureDecoder

SQUARE = {"height": 48, "width": 48}
PROCESSORS: dict[str, Any] = {
    "clip": CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size=SQUARE),
    "resized, then cropped": CLIPImageProcessorPil(
        size={"height": 64, "width": 60}, crop_size={"height": 40, "width": 47}
    ),
    "siglip": SiglipImageProcessorPil(size=SQUARE),
    "vit": ViTImageProcessorPil(size=SQUARE),
}
needs_kernel = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in VECTOR_UNITS, reason="torch has no kernel for this CPU"
)


def processed(decoder: PictureDecoder, picture: Image.Image) -> np.ndarray:
    return np.asarray(decoder.process(picture)["pixel_values"][0])


def decoded(decoder: PictureDecoder, picture: Image.Image) -> np.ndarray:
    room = decoder.blank(1)
    decoder.decode(picture, room, 0)
    pixels: np.ndarray = room.pixels.numpy()[0]
    return pixels


@needs_kernel
@pytest.mark.parametrize("name", PROCESSORS)
@given(width=st.integers(8, 300), height=st.integers(8, 300), seed=st.integers(0, 9))
def test_pixels_are_those_of_the_processor_but_for_rounding(
    name: str, width: int, height: int, seed: int
) -> None:
    decoder = PictureDecoder(PROCESSORS[name])
    assert "AntialiasedResize" in decoder.settings["resize"]
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    expected, found = processed(decoder, picture), decoded(decoder, picture)
    difference = abs(found.astype(int) - expected)
    assert difference.mean() < 0.1  # a crop that is off by one pixel has 80
    assert (difference > 1).mean() < 1e-3


def test_pillow_resizes_vertically_first_only_if_that_shrinks_the_picture() -> None:
    bicubic = int(Image.Resampling.BICUBIC)
    assert vertical_first((100, 280), (48, 134), bicubic)
    assert vertical_first((100, 280), (120, 134), bicubic)
    assert not vertical_first((280, 100), (134, 48), bicubic)
    assert not vertical_first((100, 280), (50, 281), bicubic)


@needs_kernel
def test_unscaled_picture_keeps_its_pixels() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    found = decoded(PictureDecoder(PROCESSORS["clip"]), Image.fromarray(noise))
    np.testing.assert_array_equal(found, noise.transpose(2, 0, 1))


class Mirroring(CLIPImageProcessorPil):
    """Image processor with a step that its settings do not show."""

    def resize(self, image: np.ndarray, *given: Any, **named: Any) -> np.ndarray:
        return np.ascontiguousarray(super().resize(image, *given, **named)[..., ::-1])


@pytest.mark.parametrize(
    "processor",
    [
        Mirroring(size={"shortest_edge": 48}, crop_size=SQUARE),
        CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size=SQUARE),  # pads
        CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size=SQUARE, resample=0),
        CLIPImageProcessorPil(do_resize=False, crop_size=SQUARE),
    ],
    ids=["mirrors", "pads", "nearest", "does not resize"],
)
def test_processor_with_other_steps_is_used_itself(processor: Any) -> None:
    decoder = PictureDecoder(processor)
    assert decoder.settings["resize"] is None
    noise = np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    np.testing.assert_array_equal(decoded(decoder, picture), processed(decoder, picture))


def test_machine_without_kernel_uses_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert AntialiasedResize.of(PROCESSORS["clip"]) is None


THREADS = """
from pathlib import Path
from threading import Thread
import numpy as np
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from model.network.pictures.picture_decoder import PictureDecoder
import torch

torch.set_num_threads(4)
decoder = PictureDecoder(CLIPImageProcessorPil())
room = decoder.blank(3)
noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)

def count():
    return len(list(Path("/proc/self/task").iterdir()))

def decode():
    for row in range(3):
        decoder.decode(Image.fromarray(noise), room, row)
    counts.append(count() - 1)  # without the thread itself

counts = [count()]
thread = Thread(target=decode)
thread.start()
thread.join()
print(counts[1] - counts[0])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_reader_thread_starts_no_other_threads() -> None:
    run = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True)
    assert run.stdout == "0\n"
