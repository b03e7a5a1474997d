"""Pictures as uint8 pixels for the image tower: all decoded at once, or decoded at each access."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from jaxtyping import Int
from torch import Tensor

from model.console import progress_bar
from model.worker_pools import available_cores

from .inputs import PictureInput
from .pictures.decoding_pool import decoding_pool
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
        """Decode the pictures at `rows`.

        Raises:
            PictureError: a picture cannot be decoded.
        """
        room = self.preprocessor.blank(len(rows))
        for place, row in enumerate(rows.tolist()):
            self.preprocessor.decoder.decode_file(self.paths[row], room, place)
        return room


def load_pictures(
    preprocessor: Preprocessor, paths: Sequence[Path], file: Path | None = None, workers: int | None = None
) -> PictureInput:
    """Decode the pictures at `paths` in parallel, into memory or into an array on disk at `file`.

    `workers` is the number of threads or processes; None: one for each core.

    Raises:
        PictureError: a picture cannot be decoded.
    """
    pictures = preprocessor.blank(len(paths), file)
    pixels, grid = pictures.pixels.numpy(), pictures.grid.numpy()
    with (
        progress_bar("decoding pictures", len(paths)) as advance,
        decoding_pool(preprocessor.decoder, len(paths), workers or available_cores()) as pool,
    ):
        for start, batch in pool.batches(paths):
            rows = slice(start, start + len(batch.pictures))
            pixels[rows], grid[rows] = batch.pictures.pixels.numpy(), batch.pictures.grid.numpy()
            batch.release()
            advance("", len(batch.pictures))
    return pictures
