"""Hashes of pictures: copies are found after another compression or size, and other pictures are not."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from model.data.pictures.picture_hash import MAX_DISTANCE, PictureHashes


def drawing(seed: int, colour: str = "navy") -> Image.Image:
    picture = Image.new("RGB", (96, 96), "white")
    for x, y, width, height in np.random.default_rng(seed).integers(4, 60, size=(10, 4)).tolist():
        ImageDraw.Draw(picture).rectangle(
            (x, y, x + width // 2, y + height // 2), fill=colour, outline="gold"
        )
    return picture


def copies_of(folder: Path, pictures: list[Image.Image], suffix: str = ".png") -> list[list[int]]:
    paths = [folder / f"{number}{suffix}" for number in range(len(pictures))]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    found: list[list[int]] = PictureHashes.of(paths).copies().tolist()
    return found


@pytest.mark.parametrize("quality", [95, 60])
@pytest.mark.parametrize("side", [64, 96, 192])
def test_a_copy_in_another_size_and_compression_is_found(tmp_path: Path, quality: int, side: int) -> None:
    drawing(1).resize((side, side), Image.Resampling.LANCZOS).save(tmp_path / "copy.jpg", quality=quality)
    with Image.open(tmp_path / "copy.jpg") as copy:
        assert copies_of(tmp_path, [drawing(1), drawing(2), copy.convert("RGB"), drawing(3)]) == [[0, 2]]


def test_other_drawings_and_other_colours_are_no_copies(tmp_path: Path) -> None:
    assert copies_of(tmp_path, [*(drawing(seed) for seed in range(30)), drawing(0, "darkred")]) == []


def test_plain_pictures_are_no_copies_of_each_other(tmp_path: Path) -> None:
    plain = [Image.new("RGB", (64, 64), colour) for colour in ("white", "snow", "red", "tomato")]
    assert copies_of(tmp_path, plain) == []


def test_equal_pictures_are_chained(tmp_path: Path) -> None:
    assert copies_of(tmp_path, [drawing(4)] * 4) == [[0, 1], [1, 2], [2, 3]]


def test_equal_files_have_equal_digests_and_no_pictures_are_no_error(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / name)
    one, other = PictureHashes.of([tmp_path / "a.png", tmp_path / "b.png"]).digests
    assert one == other
    assert PictureHashes.of([]).copies().tolist() == []


@given(st.sets(st.integers(0, 255), max_size=12), st.integers(0, 99))
def test_hashes_are_copies_exactly_if_few_bits_differ(flipped: set[int], seed: int) -> None:
    places = np.random.default_rng(seed).integers(0, 2, size=(40, 256)).astype(bool)
    places[39] = places[0]
    places[39, list(flipped)] ^= True
    hashes = PictureHashes(
        digests=(b"",) * 40,
        bits=np.packbits(places, axis=1).view(np.uint64),
        colours=np.zeros((40, 3), np.int16),
        hashed=np.ones(40, dtype=bool),
    )
    assert hashes.copies().tolist() == ([[0, 39]] if len(flipped) <= MAX_DISTANCE else [])
