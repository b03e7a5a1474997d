"""Tests of decoded pictures: cached pictures and pictures decoded at each access are equal."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from model.errors import InputError
from model.network.image_cache import PictureFiles, keep_pictures, load_pictures
from model.network.processor import Preprocessor

ROWS = torch.tensor([3, 0, 3])


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = rng.integers(0, 256, (50 + number, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return [tmp_path / f"{number}.png" for number in range(4)]


def test_cached_and_newly_decoded_pictures_are_equal(
    paths: list[Path], preprocessor: Preprocessor, tmp_path: Path
) -> None:
    kept = keep_pictures(preprocessor, paths, tmp_path / "cache" / "train.npy")
    files = PictureFiles(preprocessor, paths)
    loaded = load_pictures(preprocessor, paths)
    assert len(kept) == len(files) == len(loaded) == 4
    assert torch.equal(kept.take(ROWS).pixels, loaded.pixels[ROWS])
    assert torch.equal(files.take(ROWS).pixels, loaded.pixels[ROWS])
    assert len(torch.unique(loaded.pixels, dim=0)) == 4


def test_does_not_decode_cached_pictures_again(
    paths: list[Path], preprocessor: Preprocessor, tmp_path: Path
) -> None:
    before = keep_pictures(preprocessor, paths, tmp_path / "train.npy").pixels.clone()
    for path in paths:
        path.unlink()
    assert torch.equal(keep_pictures(preprocessor, paths, tmp_path / "train.npy").pixels, before)


def test_decodes_again_after_interrupted_decoding(
    paths: list[Path], preprocessor: Preprocessor, tmp_path: Path
) -> None:
    whole = load_pictures(preprocessor, paths).pixels
    content = paths[2].read_bytes()
    paths[2].write_bytes(b"")
    with pytest.raises(UnidentifiedImageError):
        keep_pictures(preprocessor, paths, tmp_path / "train.npy")
    paths[2].write_bytes(content)
    assert torch.equal(keep_pictures(preprocessor, paths, tmp_path / "train.npy").pixels, whole)


def test_decodes_again_after_interrupted_write_of_last_cache_file(
    paths: list[Path], preprocessor: Preprocessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(file: Path, grids: np.ndarray) -> None:
        file.write_bytes(b"\x93NUMPY")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("numpy.save", half)
        with pytest.raises(KeyboardInterrupt):
            keep_pictures(preprocessor, paths, tmp_path / "train.npy")
    kept = keep_pictures(preprocessor, paths, tmp_path / "train.npy")
    assert torch.equal(kept.pixels, load_pictures(preprocessor, paths).pixels)


def test_rejects_more_pictures_than_disk_can_hold(preprocessor: Preprocessor, tmp_path: Path) -> None:
    class Many(Sequence[Path]):
        def __len__(self) -> int:
            return 10**12

        def __getitem__(self, row: object) -> Path:  # type: ignore[override]
            raise AssertionError("no picture may be decoded")

    with pytest.raises(InputError, match=r"need 3072000\.0 GB, but .* has only .*--no-picture-cache"):
        keep_pictures(preprocessor, Many(), tmp_path / "train.npy")
    assert list(tmp_path.iterdir()) == []
