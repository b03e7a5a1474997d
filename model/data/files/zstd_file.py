"""Files compressed with Zstandard (RFC 8878), of one frame or several, refused if they end within a frame.

`zstandard.open` returns the rows before the end of an incomplete file as if they were all.
"""

import io
from pathlib import Path

CHUNK_BYTES = 65_536
"""Number of compressed bytes that are decompressed at once."""

MAX_WINDOW_BYTES = 2**31
"""Maximum size of the window, as `zstd --long=31` writes it."""


class ZstdFile(io.RawIOBase):
    """Decompressed content of a file, for reading from the first byte to the last.

    Raises:
        EOFError: the file ends within a frame.
    """

    def __init__(self, path: Path) -> None:
        import zstandard

        self._decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        self._file = path.open("rb")
        self._frame = self._decompressor.decompressobj()
        self._begun = False
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill `buffer` with the next bytes, and return their number; 0 at the end of the file."""
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        while not self._ready:
            chunk = self._file.read(CHUNK_BYTES)
            if not chunk:
                if self._begun:
                    raise EOFError
                return 0
            self._ready = memoryview(self._decompressed(chunk))
        count = min(len(target), len(self._ready))
        target[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _decompressed(self, chunk: bytes) -> bytes:
        """Return what `chunk` contains; a frame that ends in it may be followed by others."""
        parts = []
        while chunk:
            parts.append(self._frame.decompress(chunk))
            self._begun, chunk = True, b""
            if self._frame.eof:
                chunk = self._frame.unused_data
                self._frame, self._begun = self._decompressor.decompressobj(), False
        return b"".join(parts)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
