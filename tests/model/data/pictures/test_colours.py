"""Colours of pictures: wide pixels, colour profiles, transparency and blank frames, in prepare and in the service."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from model.data.pictures.colours import in_rgb
from model.data.pictures.images import decode_picture, load_picture
from model.data.pictures.stored_pictures import scale_picture
from model.errors import PictureError

BLUE, GREEN, RED = (0, 0, 255), (0, 255, 0), (255, 0, 0)


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def prepared(content: bytes, folder: Path, side: int = 256) -> np.ndarray:
    """Return the pixels `[height, width, 3]` that `rcml prepare` stores for a file."""
    (folder / "in").write_bytes(content)
    suffix = scale_picture(folder / "in", folder / "out", side)
    return np.asarray(load_picture(folder / f"out{suffix}")).astype(int)


def row(values: Any, kind: Any) -> Image.Image:
    """Return a picture of one row, repeated 8 times."""
    return Image.fromarray(np.tile(np.asarray(values, kind), (8, 1)))


def greys(picture: Image.Image) -> list[int]:
    """Return the grey levels of the first row, after a check that the three channels are equal."""
    pixels = np.asarray(in_rgb(picture))
    assert (pixels == pixels[..., :1]).all()
    return [int(level) for level in pixels[0, :, 0]]


def test_sixteen_bit_grey_keeps_its_levels_in_prepare_and_service(tmp_path: Path) -> None:
    content = saved(row([0, 256, 32_768, 65_535], np.uint16), "PNG")
    expected = [0, 1, 128, 255]
    assert prepared(content, tmp_path)[0, :, 0].tolist() == expected
    assert np.asarray(decode_picture(content))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([0, 128, 255], np.int32, [0, 128, 255]),
        ([0, 32_768, 65_535], np.int32, [0, 128, 255]),
        ([0, 1, 1], np.int32, [0, 255, 255]),
        ([-100, 0, 100], np.int32, [0, 128, 255]),
        ([0, 2**30, 2**31 - 1], np.int32, [0, 128, 255]),
        ([0.0, 0.5, 1.0], np.float32, [0, 128, 255]),
        ([0.0, 51.0, 255.0], np.float32, [0, 51, 255]),
        ([-1.0, 0.0, 1.0], np.float32, [0, 128, 255]),
        ([-3e38, 0.0, 3e38], np.float32, [0, 128, 255]),
        ([float("nan"), 1.0, 0.2], np.float32, [0, 255, 51]),
        ([70_000.0, 70_000.0], np.float32, [0, 0]),
    ],
)
def test_wide_grey_tiff_is_scaled_by_its_range(
    values: list[float], kind: Any, expected: list[int], tmp_path: Path
) -> None:
    content = saved(row(values, kind), "TIFF")
    assert prepared(content, tmp_path)[0, :, 0] == pytest.approx(expected, abs=4)  # stored as JPEG
    with Image.open(BytesIO(content)) as picture:
        assert greys(picture) == expected


def test_unsigned_tiff_of_32_bits_is_not_read_as_signed() -> None:
    content = saved(row([0, 2**31 - 2**16, -1], np.int32), "TIFF")
    signed = b"\x53\x01\x03\x00\x01\x00\x00\x00\x02\x00"  # tag 339 (SampleFormat), one short: 2
    assert content.count(signed) == 1
    with Image.open(BytesIO(content.replace(signed, signed[:8] + b"\x01\x00"))) as picture:
        assert greys(picture) == [0, 127, 255]


def test_inverted_grey_of_16_bits_is_turned_back() -> None:
    content = saved(row([0, 65_535], np.uint16), "TIFF")
    black_is_zero = b"\x06\x01\x03\x00\x01\x00\x00\x00\x01\x00"  # tag 262 (PhotometricInterpretation): 1
    assert content.count(black_is_zero) == 1
    with Image.open(BytesIO(content.replace(black_is_zero, black_is_zero[:8] + b"\x00\x00"))) as picture:
        assert greys(picture) == [255, 0]


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=2, max_size=20))
def test_scaling_keeps_the_order_of_the_values(values: list[int]) -> None:
    levels = greys(row(values, np.int32))
    assert all(low <= high for low, high in zip(*_by_value(values, levels), strict=True))


def _by_value(values: list[int], levels: list[int]) -> tuple[list[int], list[int]]:
    ordered = [level for _, level in sorted(zip(values, levels, strict=True))]
    return ordered[:-1], ordered[1:]


def test_picture_without_finite_values_is_refused_with_the_remedy(tmp_path: Path) -> None:
    row([float("nan")] * 3, np.float32).save(tmp_path / "depth.tif")
    with pytest.raises(
        PictureError, match=r"picture depth\.tif .*no.* finite value; convert it to PNG or JPEG"
    ):
        scale_picture(tmp_path / "depth.tif", tmp_path / "out", 32)


def test_transparent_grey_of_16_bits_shows_the_ground(tmp_path: Path) -> None:
    content = saved(row([0, 65_535, 700, 700], np.uint16), "PNG", transparency=700)
    assert prepared(content, tmp_path)[0].tolist() == [[0] * 3, [255] * 3, [128] * 3, [128] * 3]
    assert np.asarray(decode_picture(content))[0, 2].tolist() == [128] * 3


def rgb_profile(order: str = "RGB") -> bytes:
    """Return an sRGB profile whose primaries are exchanged, so that it visibly changes colours."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    places = {}
    for at in range(132, 132 + 12 * int.from_bytes(content[128:132], "big"), 12):
        places[content[at : at + 4].decode()] = int.from_bytes(content[at + 4 : at + 8], "big")
    colours = {name: bytes(content[places[f"{name.lower()}XYZ"] :][:20]) for name in "RGB"}
    for name, other in zip("RGB", order, strict=True):
        at = places[f"{name.lower()}XYZ"]
        content[at : at + 20] = colours[other]
    return bytes(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_colour_profile_is_applied_in_prepare_and_service(kind: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    content = saved(
        Image.new("RGB", (16, 16), RED), kind, icc_profile=rgb_profile("BGR"), quality=95, **options
    )
    assert prepared(content, tmp_path)[8, 8] == pytest.approx(BLUE, abs=6)
    assert np.asarray(decode_picture(content))[8, 8] == pytest.approx(BLUE, abs=6)


def test_stored_picture_has_no_profile_that_would_be_applied_again(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), RED).save(tmp_path / "in.png", icc_profile=rgb_profile("BGR"))
    scale_picture(tmp_path / "in.png", tmp_path / "out", 32)
    with Image.open(tmp_path / "out.png") as stored:
        assert (stored.getpixel((0, 0)), stored.info) == (BLUE, {})


def test_profile_of_a_palette_and_of_transparent_colours_is_applied(tmp_path: Path) -> None:
    profile = rgb_profile("BGR")
    palette = saved(Image.new("RGB", (8, 8), RED).quantize(4), "PNG", icc_profile=profile)
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 255))
    clear.putpixel((0, 0), (255, 0, 0, 0))
    for content in (palette, saved(clear, "PNG", icc_profile=profile)):
        assert prepared(content, tmp_path)[4, 4].tolist() == list(BLUE)
        assert decode_picture(content).getpixel((4, 4)) == BLUE


@pytest.mark.parametrize("profile", [b"words", bytes(300), rgb_profile()[:200]])
def test_damaged_profile_is_ignored(profile: bytes, tmp_path: Path) -> None:
    content = saved(Image.new("RGB", (8, 8), RED), "PNG", icc_profile=profile)
    assert prepared(content, tmp_path)[0, 0].tolist() == list(RED)
    assert decode_picture(content).getpixel((0, 0)) == RED


def test_profile_of_another_colour_space_is_ignored(tmp_path: Path) -> None:
    content = saved(Image.new("L", (8, 8), 77), "PNG", icc_profile=rgb_profile("BGR"))
    assert decode_picture(content).getpixel((0, 0)) == (77, 77, 77)
    cmyk = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF", icc_profile=rgb_profile())
    assert prepared(cmyk, tmp_path)[4, 4] == pytest.approx(RED, abs=6)


def test_lab_colours_are_converted(tmp_path: Path) -> None:
    lab = ImageCms.applyTransform(
        Image.new("RGB", (16, 16), (200, 60, 40)),
        ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"),
    )
    assert lab is not None
    assert prepared(saved(lab, "TIFF"), tmp_path)[8, 8] == pytest.approx((200, 60, 40), abs=6)


@pytest.mark.parametrize(
    ("mode", "drawing", "ground"),
    [
        ("RGBA", (255, 255, 255, 255), 128),
        ("RGBA", (250, 240, 230, 255), 128),
        ("RGBA", (255, 255, 255, 90), 128),
        ("LA", (255, 255), 128),
        ("RGBA", (0, 0, 0, 255), 255),
        ("RGBA", (200, 30, 30, 255), 255),
        ("RGBA", (128, 128, 128, 255), 255),
    ],
)
def test_drawing_stays_visible_on_a_ground_chosen_by_its_luminance(
    mode: str, drawing: Any, ground: int, tmp_path: Path
) -> None:
    picture = Image.new(mode, (20, 20))
    picture.paste(drawing, (5, 5, 15, 15))
    for pixels in (
        prepared(saved(picture, "PNG"), tmp_path),
        np.asarray(decode_picture(saved(picture, "PNG"))),
    ):
        assert pixels[0, 0].tolist() == [ground] * 3
        assert np.abs(pixels[10, 10].astype(int) - ground).max() > 30


def test_white_and_grey_drawing_gets_a_black_ground() -> None:
    picture = Image.new("RGBA", (20, 20))
    picture.paste((255, 255, 255, 255), (5, 5, 15, 10))
    picture.paste((128, 128, 128, 255), (5, 10, 15, 15))
    assert decode_picture(saved(picture, "PNG")).getpixel((0, 0)) == (0, 0, 0)


def test_opaque_white_picture_with_alpha_stays_white() -> None:
    assert decode_picture(saved(Image.new("RGBA", (8, 8), "white"), "PNG")).getpixel((0, 0)) == (255,) * 3


@pytest.mark.parametrize(
    ("kind", "suffix"), [("GIF", "gif"), ("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tif")]
)
def test_first_frame_that_is_not_blank_is_taken(kind: str, suffix: str, tmp_path: Path) -> None:
    drawing = Image.new("RGB", (16, 16), "white")
    drawing.paste(BLUE, (0, 0, 8, 16))
    frames = [Image.new("RGB", (16, 16), "black"), drawing, Image.new("RGB", (16, 16), RED)]
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    content = saved(
        Image.new("RGB", (16, 16), "white"), kind, save_all=True, append_images=frames, duration=40, **options
    )
    assert prepared(content, tmp_path)[8, 2] == pytest.approx(BLUE, abs=6)
    if kind in ("PNG", "WEBP"):
        assert decode_picture(content).getpixel((2, 8)) == BLUE


def test_first_frame_is_kept_if_all_are_blank(tmp_path: Path) -> None:
    content = saved(
        Image.new("RGB", (16, 16), RED),
        "PNG",
        save_all=True,
        append_images=[Image.new("RGB", (16, 16), BLUE)],
    )
    assert prepared(content, tmp_path)[0, 0].tolist() == list(RED)
    assert decode_picture(content).getpixel((0, 0)) == RED


def test_service_decodes_no_more_frames_than_its_limit_of_pixels() -> None:
    drawing = Image.new("RGB", (16, 16), "white")
    drawing.paste(BLUE, (0, 0, 8, 16))
    white = Image.new("RGB", (16, 16), "white")
    content = saved(white, "PNG", save_all=True, append_images=[Image.new("RGB", (16, 16), "black"), drawing])
    cost = 16 * 16 * 4  # a PNG of 24 bits per pixel counts four times
    assert decode_picture(content, max_pixels=3 * cost).getpixel((2, 8)) == BLUE
    assert decode_picture(content, max_pixels=2 * cost).getpixel((2, 8)) == (255, 255, 255)


def test_prepare_turns_every_frame_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    drawing = Image.new("RGB", (16, 8), "white")
    drawing.paste(BLUE, (0, 0, 8, 8))
    content = saved(
        Image.new("RGB", (16, 8), "white"), "PNG", save_all=True, append_images=[drawing], exif=exif
    )
    pixels = prepared(content, tmp_path)
    assert (pixels.shape, pixels[2, 4].tolist()) == ((16, 8, 3), list(BLUE))


def test_unsupported_format_names_file_and_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text("<svg/>")
    with pytest.raises(PictureError, match=r"picture a\.svg .*convert it to PNG or JPEG"):
        scale_picture(tmp_path / "a.svg", tmp_path / "out", 32)
