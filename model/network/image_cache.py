"""Pictures as uint8 pixels for the image tower: decoded once and cached, or decoded at each access."""

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
from model.disk_space import check_room

from .inputs import PictureInput
from .processor import Preprocessor


class Pictures(Protocol):
    """Pictures that can be accessed by position, such as the decoded pictures in a `PictureInput`."""

    def __len__(self) -> int: ...

    def take(self, rows: Int[Tensor, " taken"]) -> PictureInput:
        """Return the pictures at `rows` as uint8 pixels."""


@dataclass(frozen=True)
class PictureFiles:
    """Pictures decoded from their files at each access; this needs no cache, but more CPU time."""

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
    """Decode the pictures at `paths` in parallel, into memory or into an array on disk at `file`."""
    pictures = preprocessor.blank(len(paths), file)
    with ThreadPoolExecutor() as pool:
        done = pool.map(lambda row: _decode(preprocessor, paths[row], pictures, row), range(len(paths)))
        for _ in progress(done, "decoding pictures", len(paths)):
            pass
    return pictures


def keep_pictures(preprocessor: Preprocessor, paths: Sequence[Path], file: Path) -> PictureInput:
    """Open the picture cache at `file`; if it is not complete, decode all pictures into it first.

    The file with `PictureInput.grid` is written last and then renamed, so it exists only if the cache is complete.

    Raises:
        InputError: the disk does not have enough free space.
    """
    grids = file.with_suffix(".grids.npy")
    if not grids.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        check_room(
            file.parent,
            len(paths) * preprocessor.blank(1).pixels.nbytes,
            "decoded pictures",
            "decode the pictures at every step with --no-picture-cache",
        )
        aside = file.with_suffix(".partial.npy")
        np.save(aside, load_pictures(preprocessor, paths, file).grid.numpy())
        aside.rename(grids)
    # Opened as copy-on-write, although nothing writes to it, because torch warns about read-only arrays.
    return PictureInput(torch.from_numpy(np.load(file, mmap_mode="c")), torch.from_numpy(np.load(grids)))


def _decode(preprocessor: Preprocessor, path: Path, into: PictureInput, row: int) -> None:
    with Image.open(path) as picture:
        preprocessor.decode(picture, into, row)
