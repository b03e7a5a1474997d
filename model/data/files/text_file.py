"""Text files: decompression by content, encoding by content, and lines in blocks.

The suffix of a file says nothing reliable about its compression, so the first bytes decide: gzip (RFC 1952),
Zstandard (RFC 8878), bzip2 and zip with one member. Text is UTF-8, UTF-16 or UTF-32. Bytes that are not UTF-8 are
read as Windows-1252, the superset of Latin-1 that other programs write. Both are noted in the ledger.
"""

import bz2
import codecs
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from model.errors import InputError

from .row_ledger import RowLedger
from .zstd_file import ZstdFile

BLOCK_CHARACTERS = 16_000_000
"""Number of characters of the lines that are processed at once."""

CONTROL_CHARACTER = re.compile("[\x00-\x08\x0e-\x1f]")
"""Character that no text has; the first bytes of a file that is no text contain one."""

SAMPLE_BYTES = 65_536
"""Number of bytes at the start of a file from which its encoding is derived."""

_ENCODINGS: tuple[tuple[bytes, str, str], ...] = (
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
"""Byte order mark, Python's name and our name of each encoding. UTF-32 comes first: its mark begins with UTF-16's."""

_ZSTD_SKIPPABLE = bytes(range(0x50, 0x60))
"""First bytes of a skippable frame of Zstandard, with which parallel programs begin a file."""

_FOREIGN = re.compile("[\udc80-\udcff]")


def open_bytes(path: Path, ledger: RowLedger) -> BinaryIO:
    """Open `path` for reading and decompress it if its first bytes say so.

    Raises:
        InputError: a zip archive has several members, or an archive is encrypted.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(b"\x1f\x8b"):
        ledger.note("compressed with gzip")
        return cast(BinaryIO, gzip.open(path))
    if start == b"\x28\xb5\x2f\xfd" or (start[:1] in _ZSTD_SKIPPABLE and start[1:] == b"\x2a\x4d\x18"):
        ledger.note("compressed with Zstandard")
        return cast(BinaryIO, io.BufferedReader(ZstdFile(path)))
    if start.startswith(b"BZh"):
        ledger.note("compressed with bzip2")
        return cast(BinaryIO, bz2.open(path))
    if start == b"PK\x03\x04":
        return _open_zip(path, ledger)
    return path.open("rb")


def _open_zip(path: Path, ledger: RowLedger) -> BinaryIO:
    archive = zipfile.ZipFile(path)
    members = [
        member
        for member in archive.infolist()
        if not member.is_dir() and not member.filename.startswith("__MACOSX/")
    ]
    if any(member.filename == "[Content_Types].xml" for member in members):
        raise InputError(f"{path} is a spreadsheet. Save it as CSV (UTF-8) and give that file.")
    if len(members) != 1:
        names = ", ".join(member.filename for member in members[:5])
        raise InputError(
            f"{path} contains {len(members)} files ({names}); one is needed. Unpack it, and give the right file."
        )
    if members[0].flag_bits & 1:
        raise InputError(f"{path} is encrypted. Unpack it, and give the file in it.")
    ledger.note(f"zip archive of {members[0].filename}")
    return cast(BinaryIO, archive.open(members[0]))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn errors of the file system and of damaged archives into an `InputError` that names `path`."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path} does not exist. Check the path.") from None
    except PermissionError:
        raise InputError(f"{path} must not be read by this user. Change its permissions.") from None
    except EOFError:
        raise InputError(
            f"{path} ends in the middle: the compressed file is incomplete. Get it again."
        ) from None
    except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged: {error}. Get the file again.") from None
    except NotImplementedError as error:  # of zipfile
        raise InputError(f"{path} cannot be unpacked: {error}. Unpack it, and give the file in it.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}. Check the file.") from None
    except Exception as error:
        if type(error).__module__.startswith(("zstandard", "backend_c")):
            raise InputError(f"{path} is damaged: {error}. Get the file again.") from None
        raise


class TextLines:
    """Lines of a text file, from the first to the last, in blocks; line ends are kept."""

    def __init__(self, path: Path, ledger: RowLedger) -> None:
        self.path = path
        self.ledger = ledger
        self.line = 0
        """Number of lines that were returned so far."""
        binary = io.BufferedReader(cast(io.RawIOBase, open_bytes(path, ledger)), 1 << 20)
        sample = binary.peek(SAMPLE_BYTES)[:SAMPLE_BYTES]
        encoding, name = encoding_of(sample)
        if name != "UTF-8":
            ledger.note(f"encoded in {name}")
        self._text = io.TextIOWrapper(binary, encoding, errors="surrogateescape", newline="")

    def __enter__(self) -> "TextLines":
        return self

    def __exit__(self, *_: object) -> None:
        self._text.close()

    def block(self, characters: int = BLOCK_CHARACTERS) -> list[str]:
        """Return the next whole lines, about `characters` characters together, or an empty list at the end.

        Raises:
            InputError: the file is damaged, or its bytes do not fit its encoding.
        """
        with reading(self.path):
            try:
                lines = self._text.readlines(characters)
            except UnicodeError as error:
                raise InputError(
                    f"{self.path}, after line {self.line}: the bytes do not fit the encoding of the file ({error}). "
                    "Save the file as UTF-8."
                ) from None
        try:
            "".join(lines).encode()
        except UnicodeEncodeError:
            lines = [self._in_windows_1252(line) for line in lines]
        self.line += len(lines)
        return lines

    def _in_windows_1252(self, line: str) -> str:
        """Replace bytes that are not UTF-8 with their characters in Windows-1252."""
        read = _FOREIGN.sub(_windows_1252, line)
        if read != line:
            self.ledger.note("bytes that are not UTF-8 were read as Windows-1252 (Latin-1)")
        return read


def _windows_1252(found: re.Match[str]) -> str:
    byte = bytes([ord(found.group()) - 0xDC00])
    return byte.decode("cp1252", errors="replace") if byte not in b"\x81\x8d\x8f\x90\x9d" else "\ufffd"


def encoding_of(sample: bytes) -> tuple[str, str]:
    """Return Python's name and our name of the encoding: from the byte order mark, otherwise from the zero bytes."""
    for mark, encoding, name in _ENCODINGS:
        if sample.startswith(mark):
            return encoding, name
    pairs = len(sample) // 2
    if pairs and sample[1::2].count(0) > 0.4 * pairs and sample[::2].count(0) < 0.1 * pairs:
        return "utf-16-le", "UTF-16"
    if pairs and sample[::2].count(0) > 0.4 * pairs and sample[1::2].count(0) < 0.1 * pairs:
        return "utf-16-be", "UTF-16"
    return "utf-8", "UTF-8"
