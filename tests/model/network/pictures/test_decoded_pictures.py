"""Cache of decoded pictures: filled once, resumed, checked, and never used for other pictures or another processor."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.config import SmallBackbone
from model.errors import InputError, PictureError
from model.network.image_cache import load_pictures
from model.network.pictures.decoded_pictures import DecodedPictures
from model.network.processor import Preprocessor

DATA, OTHER_DATA = "a" * 64, "b" * 64
ROWS = torch.tensor([3, 0, 3])


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    for number in range(6):
        pixels = rng.integers(0, 256, (50 + number, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return [tmp_path / f"{number}.png" for number in range(6)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "decoded"


def opened(
    folder: Path, preprocessor: Preprocessor, paths: Sequence[Path], data: str = DATA
) -> DecodedPictures:
    return DecodedPictures.open(folder, data, preprocessor.decoder, paths)


def make_unreadable(path: Path) -> None:
    """Replace a picture by zeros of the same size, which shows that it is not decoded."""
    path.write_bytes(bytes(path.stat().st_size))


def test_stored_and_newly_decoded_pictures_are_equal(
    paths: list[Path], preprocessor: Preprocessor, folder: Path
) -> None:
    cache = opened(folder, preprocessor, paths)
    cache.fill(paths[1:])
    part, loaded = cache.part(paths[1:]), load_pictures(preprocessor, paths[1:])
    assert len(part) == 5
    assert torch.equal(part.take(ROWS).pixels, loaded.pixels[ROWS])
    assert torch.equal(part.take(ROWS).grid, loaded.grid[ROWS])
    assert cache.checks.astype(bool).tolist() == [False] + [True] * 5


def test_stored_pictures_are_not_decoded_again(
    paths: list[Path], preprocessor: Preprocessor, folder: Path
) -> None:
    opened(folder, preprocessor, paths).fill(paths)
    before = load_pictures(preprocessor, paths).pixels
    for path in paths:
        make_unreadable(path)
    cache = opened(folder, preprocessor, paths)
    cache.fill(paths)
    assert torch.equal(cache.part(paths).take(torch.arange(6)).pixels, before)


def test_interrupted_filling_goes_on(paths: list[Path], preprocessor: Preprocessor, folder: Path) -> None:
    whole = load_pictures(preprocessor, paths).pixels
    content = paths[4].read_bytes()
    paths[4].write_bytes(b"")
    cache = opened(folder, preprocessor, paths)
    with pytest.raises(PictureError, match=r"picture 4\.png cannot be decoded"):
        cache.fill(paths)
    paths[4].write_bytes(content)
    make_unreadable(paths[0])  # stored before the interruption
    cache = opened(folder, preprocessor, paths)
    cache.fill(paths)
    assert torch.equal(cache.part(paths).take(torch.arange(6)).pixels, whole)


def test_damaged_row_is_decoded_again(paths: list[Path], preprocessor: Preprocessor, folder: Path) -> None:
    cache = opened(folder, preprocessor, paths)
    cache.fill(paths)
    before = cache.pixels.copy()
    cache.pixels[2, 0, 0, 0] ^= 1
    cache.grids[3, 0] = 7
    cache = opened(folder, preprocessor, paths)
    cache.fill(paths)
    np.testing.assert_array_equal(cache.pixels, before)
    assert cache.grids.tolist() == [[0, 0]] * 6


def test_replaced_picture_is_decoded_again_and_a_deleted_one_is_missing(
    paths: list[Path], preprocessor: Preprocessor, folder: Path
) -> None:
    cache = opened(folder, preprocessor, paths)
    cache.fill(paths)
    before = cache.pixels.copy()
    Image.new("RGB", (40, 40), "red").save(paths[2])
    cache.fill(paths)
    assert (cache.pixels[2] != before[2]).any()
    assert torch.equal(
        cache.part(paths).take(torch.arange(6)).pixels, load_pictures(preprocessor, paths).pixels
    )
    paths[3].unlink()
    with pytest.raises(PictureError, match=r"picture 3\.png does not exist"):
        cache.fill(paths)


def test_remains_of_an_interrupted_run_with_the_same_process_id_do_not_matter(
    paths: list[Path], preprocessor: Preprocessor, folder: Path
) -> None:
    own = opened(folder, preprocessor, paths).folder
    own.rename(own.with_name(f".{own.name}-{os.getpid()}.partial"))
    cache = opened(folder, preprocessor, paths)
    cache.fill(paths)
    assert cache.checks.all()
    assert cache.folder.stat().st_mode == folder.stat().st_mode


def test_other_data_or_processor_has_a_cache_of_its_own(
    paths: list[Path], preprocessor: Preprocessor, folder: Path
) -> None:
    opened(folder, preprocessor, paths).fill(paths)
    side: int = preprocessor.decoder.shape[-1]
    other = Preprocessor.train(["red mug"], SmallBackbone(image_size=side))
    other.image_processor.resample = 2  # bilinear
    others = Preprocessor(other.tokenizer, other.image_processor, other.text_format)
    assert others.decoder.shape == preprocessor.decoder.shape
    for cache in (
        opened(folder, preprocessor, paths, OTHER_DATA),
        opened(folder, others, paths),
    ):
        assert not cache.checks.any()
        assert not cache.read(paths[0], np.empty_like(cache.pixels[0]), np.empty_like(cache.grids[0]))
    assert opened(folder, preprocessor, paths).checks.all()


def test_damaged_cache_is_refused(paths: list[Path], preprocessor: Preprocessor, folder: Path) -> None:
    cache = opened(folder, preprocessor, paths)
    with pytest.raises(InputError, match=r"damaged \(it has 6 pictures instead of 5\)\. Delete this folder"):
        opened(folder, preprocessor, paths[1:])
    (cache.folder / "pixels.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match="Delete this folder"):
        opened(folder, preprocessor, paths)


def test_rejects_more_pictures_than_disk_can_hold(
    paths: list[Path], preprocessor: Preprocessor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = opened(folder, preprocessor, paths)
    cache.fill(paths[:2])
    monkeypatch.setattr("model.disk_space.has_room", lambda folder, needed: needed <= 3 * 3 * 32 * 32)
    cache.fill(paths[:5])
    monkeypatch.setattr("model.disk_space.has_room", lambda folder, needed: needed == 0)
    with pytest.raises(InputError, match=r"decoded pictures need .*--no-picture-cache"):
        cache.fill(paths)
    cache.fill(paths[:5])
