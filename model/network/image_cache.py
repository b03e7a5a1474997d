"""Pictures as bytes, ready for the image tower: decoded once and kept, or decoded at each use."""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from model.console import progress
from model.errors import InputError

from .inputs import PictureInput
from .processor import Preprocessor


class Pictures(Protocol):
    """Pictures by position. A `PictureInput` is one: all of them decoded."""

    def __len__(self) -> int: ...

    def take(self, rows: Int[Tensor, " taken"]) -> PictureInput:
        """Take the pictures at `rows`, as bytes."""


@dataclass(frozen=True)
class PictureFiles:
    """Pictures that are decoded each time they are asked for: no room needed, but a core or more."""

    preprocessor: Preprocessor
    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Int[Tensor, " taken"]) -> PictureInput:
        """Decode the pictures at `rows`."""
        room = self.preprocessor.blank(len(rows))
        for place, row in enumerate(rows.tolist()):
            _decode(self.preprocessor, self.paths[row], room, place)
        return room


def load_pictures(
    preprocessor: Preprocessor, paths: Sequence[Path], file: Path | None = None
) -> PictureInput:
    """Decode the pictures at `paths`, in parallel, into memory or into an array on disk at `file`."""
    pictures = preprocessor.blank(len(paths), file)
    with ThreadPoolExecutor() as pool:
        done = pool.map(lambda row: _decode(preprocessor, paths[row], pictures, row), range(len(paths)))
        for _ in progress(done, "decoding pictures", len(paths)):
            pass
    return pictures


def keep_pictures(preprocessor: Preprocessor, paths: Sequence[Path], file: Path) -> PictureInput:
    """`load_pictures` into `file`, unless an earlier call has: its second file comes last, and whole.

    Raises:
        InputError: there is no room for them.
    """
    grids = file.with_suffix(".grids.npy")
    if not grids.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        _check_room(file.parent, len(paths) * preprocessor.blank(1).pixels.nbytes)
        aside = file.with_suffix(".partial.npy")
        np.save(aside, load_pictures(preprocessor, paths, file).grid.numpy())
        aside.rename(grids)
    # Never written to; torch warns of an array that is read-only.
    return PictureInput(torch.from_numpy(np.load(file, mmap_mode="c")), torch.from_numpy(np.load(grids)))


def _check_room(folder: Path, needed: int) -> None:
    # A file that is mapped into memory takes its room as it is written to, and a full disk then kills the process.
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"The decoded pictures take {needed / 1e9:.1f} GB, and {folder} has room for {free / 1e9:.1f} GB. "
            "Make room, or decode them at every step with --no-picture-cache."
        )


def _decode(preprocessor: Preprocessor, path: Path, into: PictureInput, row: int) -> None:
    with Image.open(path) as picture:
        preprocessor.decode(picture, into, row)
