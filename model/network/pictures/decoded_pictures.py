"""Decoded pictures on disk, which training, validation and index builds of the same prepared data share.

    FOLDER/DATA/DECODER/
      settings.json   all settings that the pixels depend on
      pixels.npy      uint8 [pictures, 3, height, width], or [pictures, patches, values]
      grids.npy       int32 [pictures, 2]; see `PictureInput.grid`
      checks.npy      uint64 [pictures]: 1 + CRC-32 of the picture's row in the other two files and of the size of the
                      picture's file, or 0 if it is missing

DATA is a digest of the prepared data, and DECODER one of `settings.json`. Pictures of other data or of another image
processor are therefore never used. Row i belongs to the i-th item with a picture. Whoever needs a row first decodes
and stores it, and writes its checksum last; an interrupted run thus loses nothing. Every row is checked before a
run uses it, and decoded again if it is damaged or if the file of the picture has another size. A picture whose
file was deleted is not read either. Rows that were never written take no disk space.
"""

import hashlib
import json
import shutil
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Self

import numpy as np
import torch
from jaxtyping import Int, Int32, UInt8, UInt64
from numpy import ndarray
from torch import Tensor

from model.console import progress_bar
from model.disk_space import check_room
from model.durable_files import share, storing
from model.errors import ArtifactError, InputError
from model.network.inputs import PictureInput
from model.plain_file import plain_status
from model.worker_pools import available_cores

from .decoding_pool import decoding_pool
from .picture_decoder import PictureDecoder


@dataclass(frozen=True)
class DecodedPictures:
    """Open cache of the decoded pictures of prepared data. `rows` maps the file of each picture to its row."""

    folder: Path
    decoder: PictureDecoder
    rows: Mapping[Path, int]
    pixels: UInt8[ndarray, "pictures ..."]
    grids: Int32[ndarray, "pictures 2"]
    checks: UInt64[ndarray, " pictures"]

    @classmethod
    def open(cls, folder: Path, data: str, decoder: PictureDecoder, paths: Sequence[Path]) -> Self:
        """Open the cache in `folder` for the prepared data with digest `data`, or create an empty one.

        `paths` are the files of all its pictures, in the order of the items.

        Raises:
            InputError: the cache is damaged.
            StorageError: the disk is full or failing.
        """
        settings = json.dumps(decoder.settings, indent=2, sort_keys=True, default=str) + "\n"
        own = folder / data[:16] / hashlib.sha256(settings.encode()).hexdigest()[:16]
        shape = (len(paths), *decoder.shape)
        if not own.exists():
            _create(own, settings, shape)
        try:
            pixels, grids, checks = (_mapped(own / f"{name}.npy") for name in ("pixels", "grids", "checks"))
        except (OSError, ValueError, EOFError, ArtifactError) as error:
            raise _damaged(own, error) from None
        if (pixels.shape, grids.shape, checks.shape) != (shape, (len(paths), 2), (len(paths),)):
            raise _damaged(own, f"it has {len(pixels)} pictures instead of {len(paths)}")
        return cls(own, decoder, {path: row for row, path in enumerate(paths)}, pixels, grids, checks)

    def read(self, path: Path, pixels: UInt8[ndarray, "..."], grid: Int32[ndarray, " 2"]) -> bool:
        """Copy the decoded picture at `path` into `pixels` and `grid`.

        Return whether it was stored undamaged, and its file exists and has the same size.
        """
        row = self.rows[path]
        if not self.checks[row]:
            return False
        pixels[...], grid[...] = self.pixels[row], self.grids[row]
        return bool(self.checks[row] == _check(path, pixels, grid))

    def write(self, path: Path, pixels: UInt8[ndarray, "..."], grid: Int32[ndarray, " 2"]) -> None:
        """Store the decoded picture at `path`."""
        row = self.rows[path]
        self.pixels[row], self.grids[row] = pixels, grid
        self.checks[row] = _check(path, pixels, grid)

    def require_room(self, paths: Sequence[Path], alternative: str) -> None:
        """Check that the disk has room for those of the pictures at `paths` that are not stored yet.

        Raises:
            InputError: it has not; the message names `alternative` as a remedy.
        """
        missing = sum(not self.checks[self.rows[path]] for path in paths)
        check_room(self.folder, missing * self.pixels[:1].nbytes, "decoded pictures", alternative)

    def fill(self, paths: Sequence[Path], workers: int | None = None) -> None:
        """Decode those of the pictures at `paths` that are not stored undamaged; `workers` is all cores if None.

        Raises:
            InputError: the disk does not have enough free space.
            PictureError: a picture cannot be decoded.
        """
        self.require_room(paths, "decode the pictures at every step with --no-picture-cache")
        with (
            progress_bar("decoding pictures", len(paths)) as advance,
            decoding_pool(self.decoder, len(paths), workers or available_cores(), store=self) as pool,
        ):
            for _, batch in pool.batches(paths):
                advance("", len(batch.pictures))
                batch.release()

    def part(self, paths: Sequence[Path]) -> "CachedPictures":
        """Return the stored pictures at `paths`."""
        return CachedPictures(self, np.array([self.rows[path] for path in paths]))


@dataclass(frozen=True)
class CachedPictures:
    """Pictures at some rows of a filled cache."""

    cache: DecodedPictures
    rows: Int[ndarray, " pictures"]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: Int[Tensor, " taken"]) -> PictureInput:
        """Read the pictures at `rows`."""
        taken = self.rows[rows.numpy()]
        return PictureInput(
            torch.from_numpy(self.cache.pixels[taken]), torch.from_numpy(self.cache.grids[taken])
        )


def _create(folder: Path, settings: str, shape: tuple[int, ...]) -> None:
    """Create an empty cache, unless another process does so first."""
    with storing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        # The process ID would not be unique: that of an interrupted run in a container is often the same.
        aside = Path(mkdtemp(prefix=f".{folder.name}-", suffix=".partial", dir=folder.parent))
        share(aside)
        (aside / "settings.json").write_text(settings, encoding="utf-8")
        for name, dtype, size in (
            ("pixels", np.uint8, shape),
            ("grids", np.int32, (shape[0], 2)),
            ("checks", np.uint64, shape[:1]),
        ):
            np.lib.format.open_memmap(aside / f"{name}.npy", mode="w+", dtype=dtype, shape=size)
        try:
            aside.rename(folder)
        except OSError:
            shutil.rmtree(aside)
            if not folder.exists():
                raise


def _check(path: Path, pixels: UInt8[ndarray, "..."], grid: Int32[ndarray, " 2"]) -> int:
    """Return the content of `checks.npy` for a picture; 0 if there is no file at `path`."""
    try:
        size = path.stat().st_size
    except OSError:
        return 0
    return 1 + zlib.crc32(grid.data, zlib.crc32(pixels.data, size & 0xFFFFFFFF))


def _mapped(path: Path) -> ndarray:
    plain_status(path, path.parent)
    return np.asarray(np.load(path, mmap_mode="r+"))


def _damaged(folder: Path, reason: object) -> InputError:
    return InputError(f"The decoded pictures in {folder} are damaged ({reason}). Delete this folder.")
