"""Decoding of untrusted pictures: each is quickly decoded as in `rcml prepare`, or quickly rejected with a reason."""

import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from model.data.pictures.image_headers import exif_orientation, read_container
from model.data.pictures.images import (
    DEFAULT_PICTURE_SIDE,
    MAX_UNTRUSTED_BYTES,
    MAX_UNTRUSTED_PIXELS,
    MAX_UNTRUSTED_SIDE,
    decode_picture,
    load_picture,
)
from model.data.pictures.stored_pictures import scale_picture
from model.data.prepare_config import PrepareConfig
from model.errors import PictureError
from tests.yard import yards

READ = ("JPEG", "PNG", "WEBP")
FORMATS = (*READ, "GIF", "BMP", "TIFF", "ICO", "PPM", "AVIF")
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF")


def pixels(width: int, height: int, seed: int = 0) -> Image.Image:
    """Draw vertical stripes of random colours, with noise in the lower half."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(rng.integers(0, 256, (1, width, 3)), height, axis=0)
    rows[height // 2 :] = rng.integers(0, 256, (height - height // 2, width, 3))
    return Image.fromarray(rows.astype(np.uint8))


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, extra: bytes = b"", raw: bytes | None = None) -> bytes:
    """Return a black PNG with extra chunks before its pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = zlib.compress(raw if raw is not None else bytes((3 * width + 1) * height))
    return MAGIC[1] + header + extra + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def jpeg_segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def seconds(content: bytes) -> float:
    """Measure the seconds to decode or reject; return the best of three, because other processes may interfere."""

    def once() -> float:
        begun = perf_counter()
        is_decoded(content)
        return perf_counter() - begun

    return min(once() for _ in range(3))


def is_decoded(content: bytes) -> bool:
    try:
        decode_picture(content)
    except PictureError:
        return False
    return True


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_keeps_the_pixels_of_a_lossless_picture(kind: str) -> None:
    picture = pixels(30, 20)
    decoded = decode_picture(saved(picture, kind, lossless=True))
    assert (decoded.mode, decoded.size, decoded.tobytes()) == ("RGB", (30, 20), picture.tobytes())


def test_decodes_a_jpeg_as_pillow_does() -> None:
    content = saved(pixels(30, 20), "JPEG")
    assert decode_picture(content).tobytes() == Image.open(BytesIO(content)).convert("RGB").tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(40, 30), (400, 300)])
def test_decodes_every_png_mode_as_prepare_does(mode: str, size: tuple[int, int], tmp_path: Path) -> None:
    picture = pixels(*size)
    if mode in ("LA", "RGBA"):
        picture.putalpha(pixels(*size, seed=1).convert("L"))
    content = saved(picture.convert("I").convert(mode) if mode == "I;16" else picture.convert(mode), "PNG")
    (tmp_path / "in.png").write_bytes(content)
    scale_picture(tmp_path / "in.png", tmp_path / "out", DEFAULT_PICTURE_SIDE)
    assert decode_picture(content).tobytes() == load_picture(tmp_path / "out.png").tobytes()


def test_scales_pictures_as_prepare_does_by_default() -> None:
    assert PrepareConfig.model_fields["picture_size"].default == DEFAULT_PICTURE_SIDE
    assert decode_picture(saved(pixels(400, 100), "PNG")).size == (256, 64)
    assert decode_picture(saved(pixels(400, 100), "PNG"), side=40).size == (40, 10)


def test_transparent_pixels_become_white() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert decode_picture(saved(clear, "WEBP", lossless=True)).getpixel((4, 4)) == (255, 255, 255)
    palette = clear.convert("RGB").convert("P")
    assert decode_picture(saved(palette, "PNG", transparency=bytes(256))).getpixel((4, 4)) == (255, 255, 255)


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotates_a_picture_upright_as_pillow_does(kind: str, order: str, orientation: int) -> None:
    exif = Image.Exif()
    exif.endian = order
    exif[0x0110], exif[0x0112] = "a camera", orientation
    content = saved(pixels(24, 16), kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(BytesIO(content))).convert("RGB")
    decoded = decode_picture(content)
    assert (decoded.size, decoded.tobytes()) == (upright.size, upright.tobytes())


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\0\0",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        b"XX*\0\x08\0\0\0\1\0",
    ],
)
def test_damaged_exif_causes_no_rotation(exif: bytes) -> None:
    assert exif_orientation(exif) == 1


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_decodes_the_first_frame_of_an_animation(kind: str) -> None:
    first, *others = (pixels(20, 20, seed) for seed in range(3))
    content = saved(first, kind, save_all=True, append_images=others, lossless=True, duration=50)
    assert decode_picture(content).tobytes() == first.tobytes()


@pytest.mark.parametrize("kind", FORMATS[len(READ) :])
def test_rejects_other_formats(kind: str) -> None:
    content = saved(pixels(16, 16), kind)
    with pytest.raises(PictureError, match="it is not a JPEG, PNG or WebP"):
        decode_picture(content)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"<svg/>", b"RIFF\x04\0\0\0WAVEfmt ", b"%!PS-Adobe"])
def test_rejects_content_that_is_not_a_picture(content: bytes) -> None:
    with pytest.raises(PictureError, match="it is not a JPEG, PNG or WebP"):
        decode_picture(content)


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_rejects_a_truncated_picture(kind: str, share: float) -> None:
    content = saved(pixels(64, 64), kind)
    with pytest.raises(PictureError, match=r"^The picture cannot be decoded: it is (truncated|damaged)"):
        decode_picture(content[: int(len(content) * share)])


@pytest.mark.parametrize("kind", READ)
def test_ignores_data_after_a_picture(kind: str) -> None:
    content = saved(pixels(16, 16), kind)
    for other in (b"PK\x03\x04", b"<script>", saved(pixels(8, 8), "GIF")):
        assert decode_picture(content + other).tobytes() == decode_picture(content).tobytes()


def test_ignores_further_pictures_in_a_jpeg() -> None:
    content = saved(pixels(16, 16), "MPO", save_all=True, append_images=[pixels(16, 16, 1)])
    assert decode_picture(content).tobytes() == Image.open(BytesIO(content)).convert("RGB").tobytes()


@pytest.mark.parametrize(
    ("width", "height", "says"),
    [
        (3_000, 2_001, "3000 x 2001 pixels; at most 6,000,000 are allowed for a PNG with this encoding"),
        (2**31 - 1, 2**31 - 1, "2147483647 x 2147483647 pixels; at most 65,535 per side are allowed"),
        (MAX_UNTRUSTED_SIDE + 1, 1, "65536 x 1 pixels; at most 65,535 per side are allowed"),
    ],
)
def test_rejects_an_oversized_png_before_decoding(width: int, height: int, says: str) -> None:
    with pytest.raises(PictureError, match=f"^The picture has {says}.* Send a smaller picture"):
        decode_picture(png(width, height, raw=b""))


def test_rejects_an_oversized_webp_before_decoding() -> None:
    content = bytearray(saved(pixels(16, 16), "WEBP", exif=b"Exif\0\0II*\0"))
    assert content[12:16] == b"VP8X"
    content[24:30] = b"\xff\x3f\0\xff\x3f\0"
    with pytest.raises(PictureError, match="16384 x 16384 pixels; at most 4,800,000 are allowed for a WEBP"):
        decode_picture(bytes(content))


def test_decoding_effort_of_a_jpeg_grows_with_its_scans() -> None:
    plain = read_container(saved(pixels(64, 64), "JPEG"))
    assert (plain.effort, MAX_UNTRUSTED_PIXELS // plain.effort) == (1, 24_000_000)
    progressive = saved(pixels(64, 64), "JPEG", progressive=True)
    assert read_container(progressive).effort == 2
    last_scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    assert read_container(progressive[:-2] + 90 * last_scan + progressive[-2:]).effort == 200


def test_maximum_number_of_pixels_can_be_chosen() -> None:
    content = saved(pixels(20, 20), "PNG")
    assert decode_picture(content, max_pixels=1_600).size == (20, 20)
    with pytest.raises(PictureError, match="at most 399 are allowed"):
        decode_picture(content, max_pixels=1_599)


def test_rejects_a_file_with_too_many_bytes() -> None:
    content = saved(pixels(16, 16), "JPEG")
    assert is_decoded(content.ljust(MAX_UNTRUSTED_BYTES, b"\0"))
    with pytest.raises(PictureError, match="has 10,000,001 bytes; at most 10,000,000 are allowed"):
        decode_picture(content.ljust(MAX_UNTRUSTED_BYTES + 1, b"\0"))


def test_rejects_contradictory_sizes() -> None:
    content = saved(pixels(16, 16), "PNG")
    twice = (
        content[:33] + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 9_000, 9_000, 8, 2, 0, 0, 0)) + content[33:]
    )
    assert not is_decoded(twice)


def exif_bomb() -> bytes:
    """Return EXIF with 65,535 entries that all refer to the same 8 MB, so that reading all of them takes 500 GB."""
    entries = b"".join(struct.pack("<HHII", 40_000 + tag % 20_000, 7, 8_000_000, 8) for tag in range(65_535))
    return b"II*\0" + struct.pack("<IH", 8, 65_535) + entries + bytes(8_000_000)


def many_exif_segments() -> bytes:
    content = saved(pixels(16, 16), "JPEG")
    first = jpeg_segment(0xE1, b"Exif\0\0" + exif_bomb()[:65_000])
    return content[:2] + first + 9_000 * jpeg_segment(0xE1, b"Exif\0\0a") + content[2:]


def many_passes() -> bytes:
    content = saved(pixels(2_000, 1_500), "JPEG", progressive=True)
    return content[:-2] + 10 * content[content.rindex(b"\xff\xda") : -2] + content[-2:]


def many_frames() -> bytes:
    frames = [pixels(16, 16, seed) for seed in range(3)]
    content = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    start = content.index(b"ANMF")
    end: int = start + 8 + struct.unpack_from("<I", content, start + 4)[0]
    body = content[12:] + (4_000_000 // (end - start)) * content[start:end]
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


BOMBS: dict[str, Callable[[], bytes]] = {
    "pixels that decompress to more than the declared size": lambda: png(10, 10, raw=bytes(100_000_000)),
    "compressed texts": lambda: png(
        10, 10, 5_000 * png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20)))
    ),
    "a compressed colour profile": lambda: png(
        10, 10, png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(100_000_000)))
    ),
    "EXIF of a PNG": lambda: png(10, 10, png_chunk(b"eXIf", exif_bomb())),
    "EXIF of a JPEG": many_exif_segments,
    "too many chunks": lambda: png(10, 10, 800_000 * png_chunk(b"tEXt", b"")),
    "too many segments": lambda: MAGIC[0][:2] + 2_400_000 * jpeg_segment(0xFE, b""),
    "too many tables": lambda: MAGIC[0][:2] + 1_500 * jpeg_segment(0xDB, 100 * bytes(65)),
    "fill bytes": lambda: MAGIC[0][:2] + 9_000_000 * b"\xff",
    "many passes": many_passes,
    "many frames": many_frames,
    "one column": lambda: png(90, 65_000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_handles_picture_bombs_quickly(name: str) -> None:
    content = BOMBS[name]()
    # Four times the documented limit, because this is not a precise measurement.
    assert yards(lambda: is_decoded(content)) < 20


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("too many chunks", "it has too many chunks"),
        ("too many segments", "it has too many segments"),
        ("too many tables", "it has too many tables"),
        ("fill bytes", "it is truncated"),
    ],
)
def test_rejects_excessive_structures_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(PictureError, match=reason):
        decode_picture(BOMBS[name]())


@pytest.mark.parametrize("marker", [0xC3, 0xC5, 0xC9, 0xCA])
def test_rejects_jpeg_encodings_that_decode_slowly(marker: int) -> None:
    content = saved(pixels(16, 16), "JPEG").replace(b"\xff\xc0", bytes([0xFF, marker]))
    with pytest.raises(PictureError, match="it is a JPEG with an unsupported encoding"):
        decode_picture(content)


def test_decoder_receives_only_pixel_data() -> None:
    extra = b"".join(
        png_chunk(kind, b"a\0\0") for kind in (b"zTXt", b"iCCP", b"eXIf", b"acTL", b"fcTL", b"vpAg")
    )
    assert read_container(png(10, 10, extra)).content == png(10, 10)
    content = saved(pixels(16, 16), "JPEG")
    rest = b"".join(jpeg_segment(marker, b"Exif\0\0words") for marker in (0xE1, 0xE2, 0xED, 0xFE))
    assert read_container(content[:2] + rest + content[2:] + b"more").content == content


def test_rejection_reveals_nothing_about_this_machine() -> None:
    for content in (b"", saved(pixels(16, 16), "PNG")[:60], png(10, 10, raw=b"")):
        with pytest.raises(PictureError) as refused:
            decode_picture(content)
        assert not any(word in str(refused.value) for word in ("/", "0x", "PIL", "BytesIO", "libpng"))
        assert refused.value.__suppress_context__


def test_error_names_a_local_picture_without_its_folder(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"^picture gone\.png does not exist$"):
        load_picture(tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("words")
    with pytest.raises(PictureError, match=r"^picture text\.png cannot be decoded \(its format is unknown\)"):
        load_picture(tmp_path / "text.png")


def test_suppresses_pillow_warnings_about_tags(tmp_path: Path) -> None:
    content = saved(pixels(16, 16), "JPEG")
    broken = jpeg_segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    (tmp_path / "in.jpg").write_bytes(content[:2] + broken + content[20:])  # without the JFIF segment
    code = "import pathlib, sys; {}; from PIL import Image; Image.open(sys.argv[1]).getexif()"
    heard = [
        subprocess.run(
            [sys.executable, "-c", code.format(first), tmp_path / "in.jpg"],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        for first in ("pass", "import model.data.pictures.images")
    ]
    assert "Corrupt EXIF data" in heard[0]
    assert heard[1] == ""


def test_decoding_imports_no_torch_transformers_or_polars() -> None:
    code = "import sys, model.data.pictures.images; print(*{'torch', 'transformers', 'polars'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


def seeds() -> list[bytes]:
    """Return small pictures in nine formats and several modes, with and without metadata."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a maker"
    made = []
    for number, kind in enumerate(FORMATS):
        picture = pixels(32, 24, number)
        made.append(saved(picture, kind))
        if kind in READ:
            frames = [pixels(32, 24, seed) for seed in (7, 8)]
            made += [
                saved(picture.convert("L"), kind),
                saved(picture, kind, exif=exif, icc_profile=bytes(300), comment=b"words"),
            ]
            if kind == "JPEG":
                made += [saved(picture, kind, progressive=True), saved(picture.convert("CMYK"), kind)]
            else:
                made += [
                    saved(picture.convert("RGBA"), kind, lossless=True),
                    saved(picture, kind, save_all=True, append_images=frames),
                ]
    made.append(saved(pixels(32, 24).convert("P"), "PNG", transparency=bytes(9)))
    return made


def mutant(content: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Mutate a picture: flip bits, truncate, splice, change header fields, repeat parts, or join two files."""
    raw = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        match rng.randrange(8):
            case 0:
                raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
            case 1:
                for _ in range(rng.randrange(1, 30)):
                    raw[rng.randrange(len(raw))] = rng.randrange(256)
            case 2:
                del raw[rng.randrange(1, len(raw) + 1) :]
            case 3:
                other = rng.choice(others)
                raw[rng.randrange(len(raw)) :] = other[rng.randrange(len(other)) :]
            case 4:
                at = rng.randrange(min(len(raw), 80))
                raw[at : at + 4] = rng.choice(
                    (
                        b"\xff\xff\xff\xff",
                        bytes(4),
                        b"\x7f\xff\xff\xff",
                        b"\xff\xff\xff\x7f",
                        b"\0\1\0\0",
                        b"\0\0\xff\xff",
                    )
                )
            case 5:
                start = rng.randrange(len(raw))
                part = raw[start : start + rng.randrange(1, 200)]
                raw[start:start] = part * rng.choice((1, 2, 50))
            case 6:
                raw = bytearray(rng.choice((b"", b"%PDF-", *MAGIC)) + raw + rng.choice(others))
            case 7:
                start = rng.randrange(len(raw))
                del raw[start : start + rng.randrange(1, 20)]
        if not raw:
            return b""
    content = bytes(raw)
    # A PNG with a wrong header needs a valid checksum to get past the decoder's first check.
    if content.startswith(MAGIC[1]) and len(content) > 33 and rng.random() < 0.7:
        content = content[:29] + struct.pack(">I", zlib.crc32(content[12:29])) + content[33:]
    return content


def run_mutants(count: int, limit: float | None = None) -> tuple[int, int]:
    """Decode `count` mutants; return the numbers of decoded and rejected mutants, and raise other errors."""
    rng = random.Random(count)
    made, decoded, refused = seeds(), 0, 0
    for number in range(count):
        content = mutant(made[number % len(made)], made, rng)
        begun = perf_counter()
        try:
            picture = decode_picture(content)
        except PictureError:
            refused += 1
        else:
            assert content.startswith(MAGIC)
            assert picture.mode == "RGB"
            assert max(picture.size) <= DEFAULT_PICTURE_SIDE
            decoded += 1
        if limit is not None and perf_counter() - begun > limit:
            assert seconds(content) <= limit, f"mutant {number} takes too long"
    return decoded, refused


def test_decodes_exactly_the_seeds_in_supported_formats() -> None:
    assert all(is_decoded(content) == content.startswith(MAGIC) for content in seeds())


def test_mutated_pictures_are_decoded_or_raise_picture_error() -> None:
    decoded, refused = run_mutants(600)
    assert decoded > 60
    assert refused > 300


@pytest.mark.soak
def test_200000_mutated_pictures_are_decoded_or_rejected_within_250_ms() -> None:
    decoded, refused = run_mutants(200_000, limit=0.25)
    assert decoded > 20_000
    assert refused > 100_000
