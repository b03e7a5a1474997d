"""Pictures as bytes: decoded once and kept, or each time; the same either way."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from model.backbone import Preprocessor
from model.pictures import PictureFiles, keep_pictures, load_pictures

ROWS = torch.tensor([3, 0, 3])


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(0, 256, (50 + number, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return [tmp_path / f"{number}.png" for number in range(4)]


def test_decoded_now_or_before_they_are_the_same(
    paths: list[Path], preprocessor: Preprocessor, tmp_path: Path
) -> None:
    kept = keep_pictures(preprocessor, paths, tmp_path / "cache" / "train.npy")
    files = PictureFiles(preprocessor, paths)
    loaded = load_pictures(preprocessor, paths)
    assert len(kept) == len(files) == len(loaded) == 4
    assert torch.equal(kept.take(ROWS).pixels, loaded.pixels[ROWS])
    assert torch.equal(files.take(ROWS).pixels, loaded.pixels[ROWS])
    assert len(torch.unique(loaded.pixels, dim=0)) == 4


def test_kept_pictures_are_not_decoded_again(
    paths: list[Path], preprocessor: Preprocessor, tmp_path: Path
) -> None:
    before = keep_pictures(preprocessor, paths, tmp_path / "train.npy").pixels.clone()
    for path in paths:
        path.unlink()
    assert torch.equal(keep_pictures(preprocessor, paths, tmp_path / "train.npy").pixels, before)


def test_pictures_half_decoded_are_decoded_again(
    paths: list[Path], preprocessor: Preprocessor, tmp_path: Path
) -> None:
    whole = load_pictures(preprocessor, paths).pixels
    content = paths[2].read_bytes()
    paths[2].write_bytes(b"")
    with pytest.raises(UnidentifiedImageError):
        keep_pictures(preprocessor, paths, tmp_path / "train.npy")
    paths[2].write_bytes(content)
    assert torch.equal(keep_pictures(preprocessor, paths, tmp_path / "train.npy").pixels, whole)
