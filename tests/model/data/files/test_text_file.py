"""Compressed files that are incomplete or unusual: all of their lines are read, or the file is refused."""

import io
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from model.data.files.row_ledger import RowLedger
from model.data.files.text_file import TextLines, reading
from model.errors import InputError

random_lines = random.Random(0)
LINES = [f"{random_lines.getrandbits(256):x}\n" for _ in range(10_000)]
CONTENT = "".join(LINES).encode()
HALF = "".join(LINES[:5_000]).encode()


def lines_of(path: Path, content: bytes) -> list[str]:
    path.write_bytes(content)
    with reading(path), TextLines(path, RowLedger(path)) as lines:
        found: list[str] = []
        while block := lines.block(100_000):
            found += block
    return found


@pytest.mark.parametrize("cut", [1, 5, 1_000, 200_000])
def test_an_incomplete_zstandard_file_is_refused(cut: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ends in the middle: the compressed file is incomplete"):
        lines_of(tmp_path / "log.csv.zst", zstandard.compress(CONTENT)[:-cut])


SKIPPABLE = b"\x50\x2a\x4d\x18" + struct.pack("<I", 3) + b"abc"


@pytest.mark.parametrize(
    "compress",
    [
        lambda half: zstandard.compress(CONTENT),
        lambda half: zstandard.compress(half) + zstandard.compress(CONTENT[len(half) :]),
        lambda half: (
            SKIPPABLE + zstandard.compress(half) + SKIPPABLE + zstandard.compress(CONTENT[len(half) :])
        ),
    ],
)
def test_all_frames_of_zstandard_are_read(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    assert lines_of(tmp_path / "log.csv.zst", compress(HALF)) == LINES


def test_a_zip_archive_with_another_compression_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("items.csv", "item_id,title\n")
    content = bytearray(file.getvalue())
    deflate64 = struct.pack("<H", 9)
    content[8:10] = deflate64
    place = content.index(b"PK\x01\x02") + 10
    content[place : place + 2] = deflate64
    with pytest.raises(InputError, match=r"items\.zip cannot be unpacked: .* Unpack it"):
        lines_of(tmp_path / "items.zip", bytes(content))
