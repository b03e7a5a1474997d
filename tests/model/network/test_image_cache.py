"""Tests of decoded pictures: pictures decoded at once and at each access are equal."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.errors import PictureError
from model.network.image_cache import PictureFiles, load_pictures
from model.network.processor import Preprocessor

ROWS = torch.tensor([3, 0, 3])


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(0, 256, (50 + number, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return [tmp_path / f"{number}.png" for number in range(4)]


def test_all_pictures_at_once_and_some_at_each_access_are_equal(
    paths: list[Path], preprocessor: Preprocessor
) -> None:
    files = PictureFiles(preprocessor, paths)
    loaded = load_pictures(preprocessor, paths)
    assert len(files) == len(loaded) == 4
    assert torch.equal(files.take(ROWS).pixels, loaded.pixels[ROWS])
    assert len(torch.unique(loaded.pixels, dim=0)) == 4


def test_unreadable_picture_is_told(paths: list[Path], preprocessor: Preprocessor) -> None:
    paths[2].write_bytes(b"")
    with pytest.raises(PictureError, match=r"picture 2\.png cannot be decoded"):
        load_pictures(preprocessor, paths)
    with pytest.raises(PictureError, match=r"picture 2\.png cannot be decoded"):
        PictureFiles(preprocessor, paths).take(torch.tensor([2]))
